// Finds a message by its id, in any queue; leads to the lists by state.
import { api, messagePath, pagePath } from "../api.js";
import { ago, count } from "../format.js";
import { html, useEffect, useState } from "../html.js";
import { t } from "../i18n.js";
import { Card, StateBadge, Table } from "../parts.js";
import { state } from "../store.js";

const STATES = ["ready", "active", "scheduled", "dead", "done", "cancelled"];

export function Messages({ query }) {
  const [id, setId] = useState(query.id ?? "");
  const go = (event) => {
    event.preventDefault();
    location.hash = `#/messages?id=${encodeURIComponent(id.trim())}`;
  };
  return html`
    <h1 tabindex="-1">${t("messages")}</h1>
    <${Card} title=${t("search")}>
      <form class="row" role="search" onSubmit=${go}>
        <label class="grow">${t("message-id")}
          <input type="search" required pattern="\\s*[A-Za-z0-9._:\\-]+\\s*" maxlength="140" spellcheck=${false} value=${id} onInput=${(event) => setId(event.target.value)} />
        </label>
        <button class="primary">${t("search")}</button>
      </form>
      ${query.id && html`<${Found} key=${query.id} id=${query.id} />`}
    </${Card}>
    <${Card} title=${t("by-state")}><${ByState} /></${Card}>`;
}

function Found({ id }) {
  const [found, setFound] = useState(null);
  useEffect(() => {
    const names = state.numbers?.queues.map((queue) => queue.name) ?? [];
    Promise.all(names.map((name) => api("GET", messagePath(name, id)).catch(() => null))).then((all) => {
      const known = all.filter(Boolean);
      setFound(known);
      if (known.length === 1) location.replace(pagePath(known[0].queue, id));
    });
  }, []);
  if (!found) return html`<p class="none" role="status">${t("loading")}</p>`;
  const columns = [
    { key: "queue", cell: (its) => html`<a href=${pagePath(its.queue, its.id)}>${its.queue}</a>` },
    { key: "state", cell: (its) => html`<${StateBadge} state=${its.state} />` },
    { key: "sent_at", cell: (its) => ago(its.sent_at, state.numbers?.at_ms) },
  ];
  return html`<div role="status"><${Table} columns=${columns} rows=${found} id=${(its) => its.queue} empty=${t("not-found", { id })} /></div>`;
}

function ByState() {
  const columns = [
    { key: "queue", wide: true, cell: (queue) => html`<a class="strong" href=${pagePath(queue.name)}>${queue.name}</a>` },
    ...STATES.map((name) => ({ key: name, num: true, cell: (queue) => html`<a href="${pagePath(queue.name)}?state=${name}">${count(queue.counts[name])}</a>` })),
  ];
  return html`<${Table} columns=${columns} rows=${state.numbers?.queues ?? []} id=${(queue) => queue.name} empty=${t("no-queues")} />`;
}
