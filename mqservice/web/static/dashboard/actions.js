// What one can do to queues and messages. Each says how it went; what the token does not allow is not shown.
import { api, messagePath } from "./api.js";
import { confirm } from "./dialog.js";
import { count } from "./format.js";
import { html } from "./html.js";
import { t } from "./i18n.js";
import { can, set, state, toast } from "./store.js";

const MOST = 100_000; // the API replays so many at a time

// Calls the API and says `said` when it went well; returns whether it did.
async function attempt(method, path, said) {
  try {
    toast(said(await api(method, path)));
    return true;
  } catch (problem) {
    toast(problem.message, true);
    return false;
  }
}

export async function pause(queue, wanted) {
  const verb = wanted ? "pause" : "resume";
  if (await attempt("POST", `/v1/queues/${queue.name}/${verb}`, () => t(`said.${verb}`, { queue: queue.name }))) {
    showPaused(queue.name, wanted);
  }
}

// At once, not only with the next numbers.
function showPaused(name, paused) {
  const { numbers } = state;
  if (!numbers) return;
  set({ numbers: { ...numbers, queues: numbers.queues.map((queue) => (queue.name === name ? { ...queue, paused } : queue)) } });
}

export function replayAll({ name, counts }, done = () => {}) {
  const act = async () => {
    const path = `/v1/queues/${name}/replay?limit=${MOST}`;
    if (await attempt("POST", path, ({ replayed }) => t("replayed", { count: count(replayed) }))) done();
  };
  confirm({ title: "replay-title", text: "replay-text", verb: "replay-verb", queue: name, choices: ({ dead }) => ({ dead }), counts, chosen: "dead", act });
}

export function purge({ name, counts }, chosen, done = () => {}) {
  const act = async (choice) => {
    const path = `${messagePath(name)}?state=${choice}`;
    if (await attempt("DELETE", path, ({ deleted }) => t("purged", { count: count(deleted) }))) done();
  };
  confirm({ title: "purge-title", text: "purge-text", verb: "purge-verb", queue: name, choices: ({ ready, scheduled, dead }) => ({ ready, scheduled, dead }), counts, chosen, act });
}

function remove({ name, counts }) {
  const act = async () => {
    if (await attempt("DELETE", `/v1/queues/${name}`, ({ deleted }) => t("deleted", { queue: name, count: count(deleted) }))) location.hash = "#/";
  };
  const all = ({ ready, active, scheduled, dead }) => ({ all: ready + active + scheduled + dead });
  confirm({ title: "delete-title", text: "delete-text", verb: "delete-verb", queue: name, choices: all, counts, chosen: "all", act });
}

export const replay = ({ queue, id }) => attempt("POST", `${messagePath(queue, id)}/replay`, () => t("replayed", { count: 1 }));

export const cancel = ({ queue, id }) => attempt("DELETE", messagePath(queue, id), ({ state }) => t(`said.${state}`));

// `whole`: with what ends the queue itself, which the API refuses while anybody consumes it.
export function QueueActions({ queue, done, whole = false }) {
  if (!can("admin")) return null;
  const { ready, scheduled, dead } = queue.counts;
  const about = (verb) => `${t(verb)}: ${queue.name}`;
  const verb = queue.paused ? "resume" : "pause";
  const fullest = ready ? "ready" : scheduled ? "scheduled" : "dead";
  return html`<div class="actions">
    <button type="button" aria-label=${about(verb)} onClick=${() => pause(queue, !queue.paused)}>${t(verb)}</button>
    <button type="button" aria-label=${about("replay-dead")} disabled=${!dead} onClick=${() => replayAll(queue, done)}>${t("replay-dead")}</button>
    <button type="button" class="danger" aria-label=${about("purge")} disabled=${!(ready + scheduled + dead)} onClick=${() => purge(queue, fullest, done)}>${t("purge")}</button>
    ${whole && html`<button type="button" class="danger" disabled=${queue.consumers > 0} title=${queue.consumers ? t("delete-consumed") : ""} onClick=${() => remove(queue)}>${t("delete")}</button>`}
  </div>`;
}
