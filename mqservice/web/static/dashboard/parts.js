// What several views are made of.
import { span } from "./format.js";
import { html } from "./html.js";
import { t } from "./i18n.js";
import { toast } from "./store.js";

export const Badge = ({ tone, children }) => html`<span class="badge ${tone}">${children}</span>`;

const TONES = { ready: "amber", active: "blue", scheduled: "blue", done: "green", dead: "red", cancelled: "" };
export const StateBadge = ({ state }) => html`<${Badge} tone=${TONES[state] ?? ""}>${t(`state.${state}`)}</${Badge}>`;

export function queueState(queue) {
  if (queue.paused) return ["amber", "paused"];
  return queue.consumers ? ["green", "running"] : ["red", "unconsumed"];
}
export function QueueBadge({ queue }) {
  const [tone, key] = queueState(queue);
  return html`<${Badge} tone=${tone}>${t(key)}</${Badge}>`;
}

export const Card = ({ title, more, children, kind = "" }) => html`
  <section class="card ${kind}">
    <div class="head"><h2>${title}</h2>${more}</div>
    ${children}
  </section>`;

// Columns: {key, cell(row), num, wide, extra}; the key names the heading; extra ones go first where it gets narrow. On a phone each row is a small card of its own.
export function Table({ columns, rows, id, empty }) {
  if (!rows.length) return html`<p class="none">${empty}</p>`;
  const shown = (column) => `${column.num ? "num" : ""} ${column.wide ? "wide" : ""} ${column.extra ? "extra" : ""}`;
  return html`<table>
    <thead><tr>${columns.map((column) => html`<th scope="col" class=${shown(column)}>${t(column.key)}</th>`)}</tr></thead>
    <tbody>${rows.map((row) => html`<tr key=${id(row)}>
      ${columns.map((column) => html`<td class=${shown(column)} data-label=${t(column.key)}>${column.cell(row)}</td>`)}
    </tr>`)}</tbody>
  </table>`;
}

export const Tile = ({ label, value, tone = "", href }) => html`
  <li class="tile ${tone}">
    ${href ? html`<a href=${href}>${label}</a>` : html`<span>${label}</span>`}<b>${value}</b>
  </li>`;

export const age = (seconds) => html`<span class=${seconds > 60 ? "text-amber" : ""}>${span(seconds)}</span>`;

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    copyBySelection(text); // no clipboard over plain HTTP from another machine
  }
  toast(t("copied"));
}

function copyBySelection(text) {
  const area = document.body.appendChild(document.createElement("textarea"));
  area.value = text;
  area.select();
  document.execCommand("copy");
  area.remove();
}

export const Command = ({ line, label }) => html`
  <div class="command">
    <pre tabindex="0" aria-label=${label}><code>${line}</code></pre>
    <button type="button" onClick=${() => copy(line)} aria-label=${`${t("copy")}: ${label}`}>${t("copy")}</button>
  </div>`;
