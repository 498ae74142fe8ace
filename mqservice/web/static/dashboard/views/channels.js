// The channels, and one of them followed as it happens.
import { Card, Table } from "../parts.js";
import { brief, clock, count, rate } from "../format.js";
import { html, useEffect, useState } from "../html.js";
import { t } from "../i18n.js";
import { follow } from "../live.js";
import { can, state } from "../store.js";
import { SendPanel } from "./send.js";

const MOST = 200; // lines that a panel keeps
const address = (name) => `#/channels/${encodeURIComponent(name)}`;

export function ChannelTable({ channels }) {
  const columns = [
    { key: "channel", wide: true, cell: (channel) => html`<a class="strong" href=${address(channel.name)}>${channel.name}</a>` },
    { key: "receivers", num: true, cell: (channel) => count(channel.receivers) },
    { key: "published", num: true, cell: (channel) => rate(channel.in_per_s) },
    { key: "actions", num: true, cell: (channel) => html`<a class="button" href=${address(channel.name)} aria-label=${`${t("tail")}: ${channel.name}`}>${t("tail")}</a>` },
  ];
  return html`<${Table} columns=${columns} rows=${channels} id=${(channel) => channel.name} empty=${t("no-channels")} />`;
}

export function Channels({ name }) {
  const [wanted, setWanted] = useState("");
  const go = (event) => {
    event.preventDefault();
    location.hash = address(wanted);
  };
  return html`
    <h1 tabindex="-1">${t("channels")}</h1>
    ${state.numbers && html`<${Card} title=${t("channels")}><${ChannelTable} channels=${state.numbers.channels} /></${Card}>`}
    <${Card} title=${t("follow-channel")}>
      <form class="row" onSubmit=${go}>
        <label>${t("channel-or-pattern")}
          <input required pattern="[A-Za-z0-9._:*\\-]+" maxlength="128" placeholder="prices.*" spellcheck=${false} value=${wanted} onInput=${(event) => setWanted(event.target.value)} />
        </label>
        <button>${t("tail")}</button>
      </form>
    </${Card}>
    ${name && html`<div class="pair"><${Tail} key=${name} name=${name} />
      ${can("send") && !name.includes("*") && html`<${Card} title=${t("publish")}><${SendPanel} key=${name} channel=${name} /></${Card}>`}</div>`}`;
}

function Tail({ name }) {
  const [lines, setLines] = useState([]);
  const clear = () => setLines([]);
  useEffect(() => {
    const add = (kind, data) => setLines((shown) => [{ kind, data, at: Date.now(), number: (shown[0]?.number ?? 0) + 1 }, ...shown].slice(0, MOST));
    return follow(name, add);
  }, []);
  const more = html`<button type="button" disabled=${!lines.length} onClick=${clear}>${t("clear")}</button>`;
  return html`<${Card} title=${t("tail-of", { name })} more=${more} kind="tail">
    <div class="lines" tabindex="0" role="log" aria-label=${t("tail-of", { name })}>
      ${!lines.length && html`<p class="soft">${t("tail-empty")}</p>`}
      ${lines.map((line) => html`<p key=${line.number}><time>${clock(line.at)}</time> ${text(line, name)}</p>`)}
    </div>
  </${Card}>`;
}

function text({ kind, data }, name) {
  if (kind === "gap") return html`<em>${data.missed === null ? t("gap-unknown") : t("gap", { count: count(data.missed) })}</em>`;
  return html`${data.channel !== name && html`<span class="soft">${data.channel}</span> `}<code>${brief(data.body, 500)}</code>`;
}
