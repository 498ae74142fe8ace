// What is sent by the clock, and when next.
import { api, curl, pagePath } from "../api.js";
import { ago, brief, full, span } from "../format.js";
import { html, useEffect, useState } from "../html.js";
import { t } from "../i18n.js";
import { Badge, Card, Command, Table } from "../parts.js";
import { can, firstQueue, state } from "../store.js";

const AGAIN_MS = 5000;

export function ScheduleTable({ whole = false }) {
  const [schedules, setSchedules] = useState(null);
  useEffect(() => {
    const load = () => document.hidden || api("GET", "/v1/schedules").then((found) => setSchedules(found.schedules), () => {});
    load();
    const again = setInterval(load, AGAIN_MS);
    return () => clearInterval(again);
  }, []);
  if (!schedules) return html`<p class="none">${t("loading")}</p>`;
  const now = state.numbers?.at_ms;
  const columns = [
    { key: "schedule", wide: true, cell: (its) => html`<span class="strong">${its.name}</span>` },
    { key: "queue", cell: (its) => html`<a href=${pagePath(its.queue)}>${its.queue}</a>` },
    { key: "when", wide: true, cell: (its) => its.cron ? html`<span><code>${its.cron}</code> <span class="soft">${its.tz}</span></span>` : t("every", { span: span(its.every) }) },
    { key: "next", cell: (its) => its.paused ? html`<${Badge} tone="amber">${t("paused")}</${Badge}>` : html`<time datetime=${its.next[0]} title=${full(its.next[0])}>${ago(its.next[0], now)}</time>` },
  ];
  if (whole) {
    columns.push({ key: "then", wide: true, cell: (its) => html`<ul class="plain">${its.next.slice(1).map((moment) => html`<li>${full(moment)}</li>`)}</ul>` });
    columns.push({ key: "last", cell: (its) => (its.last_at ? ago(its.last_at, now) : "–") });
    columns.push({ key: "body", wide: true, cell: (its) => html`<code>${brief(its.body)}</code>` });
  }
  return html`<${Table} columns=${columns} rows=${schedules} id=${(its) => its.name} empty=${t("no-schedules")} />`;
}

export function Schedules() {
  const body = `{"queue": "${firstQueue()}", "cron": "0 3 * * *", "tz": "Europe/Berlin", "body": {"a": 1}}`;
  return html`
    <h1 tabindex="-1">${t("schedules")}</h1>
    <${Card} title=${t("schedules")}><${ScheduleTable} whole /></${Card}>
    ${can("admin") && html`<${Card} title=${t("schedule-make")}><${Command} line=${curl("PUT", "/v1/schedules/nightly", { body })} label=${t("schedule-make")} /></${Card}>`}`;
}
