// Everything at a glance.
import { QueueActions } from "../actions.js";
import { curl, messagePath, pagePath } from "../api.js";
import { Chart } from "../chart.js";
import { count, megabytes, millis, rate, span } from "../format.js";
import { html } from "../html.js";
import { t } from "../i18n.js";
import { age, Card, Command, QueueBadge, Table, Tile } from "../parts.js";
import { can, firstQueue, state } from "../store.js";
import { ChannelTable } from "./channels.js";
import { ProcessTable } from "./processes.js";
import { ScheduleTable } from "./schedules.js";
import { SendPanel } from "./send.js";

export function Overview() {
  const { numbers, session } = state;
  if (!numbers) return null;
  const whole = !session.queues;
  return html`
    <h1 tabindex="-1" class="unseen">${t("overview")}</h1>
    <${Tiles} totals=${numbers.totals} />
    ${whole && html`<${Chart} path="/v1/stats" rates=${numbers.totals} />`}
    ${isNew(numbers) && can("send") && html`<${FirstSteps} />`}
    <${Card} title=${t("queues")}><${QueueTable} queues=${numbers.queues} /></${Card}>
    <div class="pair">
      ${whole && html`<${Card} title=${t("channels")}><${ChannelTable} channels=${numbers.channels} /></${Card}>`}
      ${whole && html`<${Card} title=${t("processes")} more=${html`<${Redis} redis=${numbers.redis} />`}><${ProcessTable} processes=${numbers.processes} /></${Card}>`}
      <${Card} title=${t("schedules")}><${ScheduleTable} /></${Card}>
      ${can("send") && html`<${Card} title=${t("send")}><${SendPanel} /></${Card}>`}
    </div>`;
}

export function Tiles({ totals }) {
  return html`<ul class="tiles">
    <${Tile} label=${t("ready")} value=${count(totals.ready)} />
    <${Tile} label=${t("active")} value=${count(totals.active)} />
    <${Tile} label=${t("scheduled")} value=${count(totals.scheduled)} />
    <${Tile} label=${t("dead")} value=${count(totals.dead)} tone=${totals.dead ? "red" : ""} />
    <${Tile} label=${t("in_per_s")} value=${rate(totals.in_per_s)} />
    <${Tile} label=${t("done_per_s")} value=${rate(totals.done_per_s)} />
    <${Tile} label=${t("p95")} value=${millis(totals.p95_ms)} />
    <${Tile} label=${t("oldest")} value=${span(totals.oldest_s)} tone=${totals.oldest_s > 60 ? "amber" : ""} />
  </ul>`;
}

const number = (key, value) => ({ key, num: true, cell: value });

// Depths lead to the messages in that state.
const depth = (state) => number(state, ({ name, counts }) => {
  const shown = count(counts[state]);
  return counts[state] ? html`<a class=${state === "dead" ? "text-red" : ""} href="${pagePath(name)}?state=${state}">${shown}</a>` : html`<span class="zero">${shown}</span>`;
});

function QueueTable({ queues }) {
  const columns = [
    { key: "queue", wide: true, cell: (queue) => html`<a class="strong" href=${pagePath(queue.name)}>${queue.name}</a>` },
    { key: "state", cell: (queue) => html`<${QueueBadge} queue=${queue} />` },
    ...["ready", "active", "scheduled", "dead"].map(depth),
    number("in_per_s", (queue) => rate(queue.rates.in_per_s)),
    number("done_per_s", (queue) => rate(queue.rates.done_per_s)),
    { ...number("p95", (queue) => millis(queue.p95_ms)), extra: true },
    { ...number("oldest", (queue) => age(queue.oldest_s)), extra: true },
    { ...number("consumers", (queue) => count(queue.consumers)), extra: true },
  ];
  if (can("admin")) columns.push({ key: "actions", num: true, wide: true, cell: (queue) => html`<${QueueActions} queue=${queue} />` });
  return html`<${Table} columns=${columns} rows=${queues} id=${(queue) => queue.name} empty=${t("no-queues")} />`;
}

const Redis = ({ redis }) => html`<span class="soft">Redis ${redis.version} · ${megabytes(redis.used_memory_bytes)}${redis.max_memory_bytes ? ` / ${megabytes(redis.max_memory_bytes)}` : ""}</span>`;

// Nothing has ever been sent.
const isNew = ({ queues }) => queues.every(({ counts, rates }) => rates.in_per_s === 0 && Object.values(counts).every((many) => many === 0));

function FirstSteps() {
  const path = messagePath(firstQueue());
  const body = '{"hello": "world"}';
  const steps = [
    ["step-send", curl("POST", path, { body })],
    ["step-wait", curl("POST", `${path}?wait=5`, { body })],
  ];
  if (!state.session.queues) {
    steps.push(["step-follow", curl("GET", "/v1/channels/prices/events")]);
    steps.push(["step-publish", curl("POST", "/v1/channels/prices/messages", { body: '{"price": 7}' })]);
  }
  return html`<${Card} title=${t("first-steps")} kind="steps">
    <p class="soft">${t("first-steps-more")}</p>
    <ol>${steps.map(([key, line]) => html`<li><p>${t(key)}</p><${Command} line=${line} label=${t(key)} /></li>`)}</ol>
  </${Card}>`;
}
