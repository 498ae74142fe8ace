// The messages of a queue in one state, page by page. The first page is read again as the numbers move.
import { api, messagePath, pagePath } from "../api.js";
import { ago, brief, count, full } from "../format.js";
import { html, useEffect, useState } from "../html.js";
import { t } from "../i18n.js";
import { Table } from "../parts.js";
import { state as page } from "../store.js";

const LIMIT = 25;
const AGAIN_MS = 2000;
const TIMES = { ready: "sent_at", active: "claimed_at", scheduled: "due_at", dead: "finished_at", done: "finished_at", cancelled: "finished_at" };

export function MessageList({ queue, state }) {
  const [cursors, setCursors] = useState([""]); // of the pages up to this one
  const [found, setFound] = useState(null);
  const cursor = cursors.at(-1);
  useEffect(() => {
    let gone = false;
    let again;
    const load = async () => {
      const path = `${messagePath(queue)}?state=${state}&limit=${LIMIT}${cursor && `&cursor=${cursor}`}`;
      const answer = document.hidden || page.link === "paused" ? null : await api("GET", path).catch(() => null);
      if (gone) return;
      if (answer) setFound(answer);
      if (!cursor || !answer) again = setTimeout(load, AGAIN_MS);
    };
    load();
    return () => {
      gone = true;
      clearTimeout(again);
    };
  }, [queue, state, cursor]);
  if (!found) return html`<p class="none">${t("loading")}</p>`;
  const first = (cursors.length - 1) * LIMIT;
  return html`
    <${Table} columns=${columns(state)} rows=${found.messages} id=${(its) => its.id} empty=${t(`empty.${state}`)} />
    ${(found.cursor || cursors.length > 1) && html`<nav class="pager" aria-label=${t("page")}>
      <button type="button" disabled=${cursors.length === 1} onClick=${() => setCursors(cursors.slice(0, -1))}>${t("previous")}</button>
      <span>${count(first + 1)}–${count(first + found.messages.length)}</span>
      <button type="button" disabled=${!found.cursor} onClick=${() => setCursors([...cursors, found.cursor])}>${t("next-page")}</button>
    </nav>`}`;
}

function columns(state) {
  const time = TIMES[state];
  const now = page.numbers?.at_ms;
  const shown = [
    { key: "id", wide: true, cell: (its) => its.id ? html`<a class="mono" href=${pagePath(its.queue, its.id)}>${its.id}</a>` : html`<span class="soft">${t("raw")}</span>` },
    { key: time, cell: (its) => its[time] && html`<time datetime=${its[time]} title=${full(its[time])}>${ago(its[time], now)}</time>` },
    { key: "deliveries", num: true, cell: (its) => count(its.deliveries ?? 0) },
  ];
  if (state === "active") shown.push({ key: "progress", num: true, cell: (its) => its.progress && `${Math.round(its.progress.fraction * 100)} %` });
  if (state === "dead") shown.push({ key: "error", wide: true, cell: (its) => html`<span class="text-red">${its.error ? brief(`${its.error.type}: ${its.error.text}`) : its.reason}</span>` });
  shown.push({ key: "body", wide: true, cell: (its) => html`<code>${brief(its.body)}</code>` });
  return shown;
}
