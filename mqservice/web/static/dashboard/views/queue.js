// One queue: its numbers, its chart, its messages by state.
import { QueueActions } from "../actions.js";
import { pagePath } from "../api.js";
import { Chart } from "../chart.js";
import { count } from "../format.js";
import { html } from "../html.js";
import { t } from "../i18n.js";
import { Card, QueueBadge } from "../parts.js";
import { can, queueNamed } from "../store.js";
import { MessageList } from "./list.js";
import { Tiles } from "./overview.js";
import { SendPanel } from "./send.js";

const STATES = ["ready", "active", "scheduled", "dead", "done", "cancelled"];
const COUNTED = STATES.slice(0, 4); // of the others the counter is of all times, not of those kept

export function QueuePage({ name, query }) {
  const queue = queueNamed(name);
  const chosen = STATES.includes(query.state) ? query.state : "ready";
  return html`
    <div class="title">
      <h1 tabindex="-1"><small>${t("queue")}</small> ${name}</h1>
      ${queue && html`<${QueueBadge} queue=${queue} /> <span class="soft">${t("consumers")}: ${count(queue.consumers)}</span>
        <${QueueActions} queue=${queue} whole />`}
    </div>
    ${queue ? html`<${Tiles} totals=${totals(queue)} /><${Chart} path=${`/v1/queues/${name}/stats`} rates=${queue.rates} />` : html`<p class="none">${t("no-queue", { queue: name })}</p>`}
    <${Card} title=${t("messages")}>
      <nav class="tabs" aria-label=${t("states")}>
        ${STATES.map((state) => html`<a href="${pagePath(name)}?state=${state}" aria-current=${state === chosen ? "page" : null}>
          ${t(`state.${state}`)} ${queue && COUNTED.includes(state) && html`<b>${count(queue.counts[state])}</b>`}</a>`)}
      </nav>
      <${MessageList} key=${chosen} queue=${name} state=${chosen} />
    </${Card}>
    ${can("send") && html`<${Card} title=${t("send-to", { queue: name })}><${SendPanel} queue=${name} /></${Card}>`}`;
}

const totals = (queue) => ({ ...queue.counts, ...queue.rates, p95_ms: queue.p95_ms, oldest_s: queue.oldest_s });
