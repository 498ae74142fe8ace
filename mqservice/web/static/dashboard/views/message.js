// One message: what it holds, what became of it, what can be done with it. Looked at again until it has ended.
import { cancel, replay } from "../actions.js";
import { api, curl, messagePath, pagePath } from "../api.js";
import { ago, full, json, span } from "../format.js";
import { html, useEffect, useState } from "../html.js";
import { t } from "../i18n.js";
import { Card, Command, copy, StateBadge } from "../parts.js";
import { can, state } from "../store.js";

const AGAIN_MS = 1000;
const TIMES = ["sent_at", "due_at", "claimed_at", "finished_at", "expires_at"];

export function MessagePage({ queue, id }) {
  const [message, setMessage] = useState(null);
  const [unknown, setUnknown] = useState(false);
  const load = async () => {
    try {
      setMessage(await api("GET", messagePath(queue, id)));
      setUnknown(false);
    } catch (problem) {
      if (problem.code === "no-such-message") setUnknown(true);
    }
  };
  useEffect(() => {
    load();
    const again = setInterval(() => document.hidden || state.link === "paused" || load(), AGAIN_MS);
    return () => clearInterval(again);
  }, []);
  const act = (action) => async () => {
    await action(message);
    await load();
  };
  if (unknown) return html`<h1 tabindex="-1">${t("message")}</h1><p class="none">${t("not-found", { id })}</p>`;
  if (!message) return html`<h1 tabindex="-1">${t("message")}</h1><p class="none">${t("loading")}</p>`;
  const sendLine = curl("POST", messagePath(queue), content(message));
  return html`
    <p class="crumbs"><a href=${pagePath(queue)}>${queue}</a> / <a href="${pagePath(queue)}?state=${message.state}">${t(`state.${message.state}`)}</a></p>
    <div class="title">
      <h1 tabindex="-1" class="mono">${id}</h1>
      <${StateBadge} state=${message.state} />
      <div class="actions">
        ${message.state === "dead" && can("work") && html`<button type="button" class="primary" onClick=${act(replay)}>${t("replay")}</button>`}
        ${["ready", "scheduled", "active"].includes(message.state) && can("work") && html`<button type="button" class="danger" onClick=${act(cancel)}>${t("cancel")}</button>`}
        <button type="button" onClick=${() => copy(sendLine)}>${t("copy-curl")}</button>
      </div>
    </div>
    ${message.progress && html`<${Progress} progress=${message.progress} />`}
    <div class="pair">
      <${Card} title=${t("body")} more=${html`<small class="soft">${message.content_type || "JSON"}</small>`}><${Text} value=${message.body} label=${t("body")} /></${Card}>
      <${Outcome} message=${message} />
      <${Card} title=${t("timeline")}><${Timeline} message=${message} /></${Card}>
      <${Card} title=${t("facts")}><${Facts} message=${message} /></${Card}>
    </div>
    <${Card} title=${t("in-terminal")}>
      <${Command} line=${curl("GET", messagePath(queue, id))} label=${t("curl-look")} />
      <${Command} line=${sendLine} label=${t("curl-send")} />
    </${Card}>`;
}

// The body as it was sent. Bytes that are no text are shown as {"base64": …}.
function content({ body, content_type }) {
  if (!content_type) return { body: JSON.stringify(body) };
  if (body?.base64 !== undefined) return { base64: body.base64, type: content_type };
  return { body: typeof body === "string" ? body : JSON.stringify(body), type: content_type };
}

const Text = ({ value, label }) => html`<pre class="value" tabindex="0" aria-label=${label}><code>${json(value)}</code></pre>`;

function Progress({ progress }) {
  const percent = Math.round(progress.fraction * 100);
  return html`<${Card} title=${t("progress")}>
    <div class="progress"><progress max="100" value=${percent} aria-label=${t("progress")}></progress> <b>${percent} %</b> <span>${progress.text}</span></div>
  </${Card}>`;
}

function Outcome({ message }) {
  const { error, result } = message;
  if (result !== undefined) return html`<${Card} title=${t("result")}><${Text} value=${result} label=${t("result")} /></${Card}>`;
  if (!error) return html`<${Card} title=${t("result")}><p class="none">${t(`outcome.${message.state}`)}</p></${Card}>`;
  return html`<${Card} title=${t("error")} more=${message.reason && html`<small class="soft">${t("reason")}: ${message.reason}</small>`}>
    <p class="text-red"><b>${error.type}</b> ${error.text}</p>
    ${error.traceback && html`<${Text} value=${error.traceback} label=${t("traceback")} />`}
  </${Card}>`;
}

// What happened, in order; each failed attempt with how long it ran, and its traceback when it is opened.
function Timeline({ message }) {
  const { attempts = [], attempts_used = 0, state, sent_at, due_at, claimed_at, finished_at, by } = message;
  const skipped = attempts_used - attempts.length;
  return html`<ol class="timeline">
    <${Moment} at=${sent_at} tone="">${t("sent")}</${Moment}>
    ${skipped > 0 && attempts.length >= 10 && html`<li class="soft">${t("earlier-attempts", { count: skipped })}</li>`}
    ${attempts.map((attempt) => html`<${Moment} at=${attempt.at_ms} tone="red">
      <b>${attempt.type}</b> ${attempt.text}
      <div class="soft">${attempt.took_ms > 0 && t("took", { span: span(attempt.took_ms / 1000) })} ${attempt.by}</div>
      ${attempt.traceback && html`<details><summary>${t("traceback")}</summary><pre tabindex="0" aria-label=${t("traceback")}>${attempt.traceback}</pre></details>`}
    </${Moment}>`)}
    ${state === "scheduled" && html`<${Moment} at=${due_at} tone="blue">${t("due")}</${Moment}>`}
    ${claimed_at && ["active", "done"].includes(state) && html`<${Moment} at=${claimed_at} tone="blue">${t("claimed")} <span class="soft">${by}</span></${Moment}>`}
    ${finished_at && html`<${Moment} at=${finished_at} tone=${state === "done" ? "green" : "red"}>${t(`state.${state}`)}</${Moment}>`}
  </ol>`;
}

const Moment = ({ at, tone, children }) => html`<li class=${tone}><time datetime=${new Date(at || 0).toISOString()}>${full(at)}</time><div>${children}</div></li>`;

function Facts({ message }) {
  const rows = TIMES.filter((name) => message[name]).map((name) => [t(name), html`${full(message[name])} <span class="soft">${ago(message[name], state.numbers?.at_ms)}</span>`]);
  rows.push([t("attempts"), message.attempts_used ?? 0], [t("deliveries"), message.deliveries ?? 0]);
  if (message.crashes) rows.push([t("crashes"), message.crashes]);
  if (message.by) rows.push([t("process"), message.by]);
  for (const [name, value] of Object.entries(message.headers ?? {})) rows.push([html`<span class="mono">${name}</span>`, html`<span class="mono">${value}</span>`]);
  return html`<dl>${rows.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
}
