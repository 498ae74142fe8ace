// Sends a message, or publishes one, shows the curl line that does the same, and what became of it.
import { api, curl, messagePath, pagePath, typeOf } from "../api.js";
import { count, json } from "../format.js";
import { html, useEffect, useRef, useState } from "../html.js";
import { t } from "../i18n.js";
import { Command, StateBadge } from "../parts.js";
import { firstQueue, state } from "../store.js";

const ENDED = ["done", "dead", "cancelled"];
const WAIT = 20;

// `queue` or `channel` says where to; with neither the queue is chosen here.
export function SendPanel({ queue, channel, onSent }) {
  const [name, setName] = useState(queue ?? firstQueue());
  const [body, setBody] = useState('{"hello": "world"}');
  const [delay, setDelay] = useState("");
  const [sent, setSent] = useState(null);
  const mounted = useRef(true);
  useEffect(() => () => (mounted.current = false), []);

  const path = channel ? `/v1/channels/${channel}/messages` : messagePath(name) + (delay ? `?delay=${encodeURIComponent(delay)}` : "");
  const content = { body, type: typeOf(body) };
  const send = async (event) => {
    event.preventDefault();
    setSent({});
    try {
      const accepted = await api("POST", path, content);
      setSent(accepted);
      onSent?.();
      if (accepted.id && !channel && !delay) await watch(accepted.id);
    } catch (problem) {
      setSent({ problem: problem.message });
    }
  };
  const watch = async (id) => {
    for (let seen = {}; mounted.current && !ENDED.includes(seen.state); ) {
      seen = await api("GET", `${messagePath(name, id)}?wait=${WAIT}`);
      setSent((shown) => (shown.id === id ? seen : shown));
    }
  };

  return html`<form class="send" onSubmit=${send}>
    ${!channel && html`<div class="row">
      ${!queue && html`<label>${t("queue")}
        <input list="queue-names" required pattern="[A-Za-z0-9._:\\-]+" maxlength="128" spellcheck=${false} value=${name} onInput=${(event) => setName(event.target.value)} />
        <datalist id="queue-names">${state.numbers?.queues.map((its) => html`<option value=${its.name} />`)}</datalist>
      </label>`}
      <label>${t("delay")}
        <input placeholder="10s" pattern="[0-9.]+|[0-9]+(ms|s|m|h)" value=${delay} onInput=${(event) => setDelay(event.target.value)} />
      </label>
    </div>`}
    <label>${t("body")} <small>${content.type === "text/plain" ? t("as-text") : "JSON"}</small>
      <textarea rows="3" spellcheck=${false} value=${body} onInput=${(event) => setBody(event.target.value)}></textarea>
    </label>
    <div class="row end">
      <button class="primary">${t(channel ? "publish" : "send-verb")}</button>
      <output>${sent && html`<${Sent} sent=${sent} queue=${name} />`}</output>
    </div>
    <p class="soft">${t("same-in-terminal")}</p>
    <${Command} line=${curl("POST", path, content)} label=${t("same-in-terminal")} />
  </form>`;
}

function Sent({ sent, queue }) {
  if (sent.problem) return html`<span class="text-red">${sent.problem}</span>`;
  if (sent.receivers !== undefined) return t("received", { count: count(sent.receivers) });
  if (!sent.state) return t("sending");
  if (!sent.id) return t("sent-unrecorded");
  return html`<${StateBadge} state=${sent.state} /> <a class="mono" href=${pagePath(queue, sent.id)}>${sent.id.slice(0, 18)}</a>
    ${sent.result !== undefined && html`<pre class="result" tabindex="0" aria-label=${t("result")}>${json(sent.result)}</pre>`}
    ${sent.error && html`<span class="text-red">${sent.error.type}: ${sent.error.text}</span>`}`;
}
