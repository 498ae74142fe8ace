// The processes that run, at any machine.
import { count, megabytes, millis, span } from "../format.js";
import { html } from "../html.js";
import { t } from "../i18n.js";
import { Table } from "../parts.js";
import { state } from "../store.js";

const slow = (ms, most) => html`<span class=${ms > most ? "text-amber" : ""}>${millis(ms)}</span>`;

export function ProcessTable({ processes }) {
  const now = state.numbers.at_ms;
  const columns = [
    { key: "process", wide: true, cell: (its) => html`<span><span class="strong">${its.host}</span> <span class="soft">${its.pid}</span></span>` },
    { key: "uptime", num: true, cell: (its) => span(Math.max(0, Math.floor((now - its.started_at_ms) / 1000))) },
    { key: "held", num: true, cell: (its) => count(its.held) },
    { key: "lag", num: true, cell: (its) => slow(its.loop_lag_ms, 100) },
    { key: "redis-ms", num: true, cell: (its) => slow(its.redis_ms, 100) },
    { key: "memory", num: true, cell: (its) => megabytes(its.rss_bytes) },
  ];
  return html`<${Table} columns=${columns} rows=${processes} id=${(its) => its.name} empty=${t("no-processes")} />`;
}
