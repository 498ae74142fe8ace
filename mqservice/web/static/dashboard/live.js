// The one event stream of this tab: the numbers, or a channel that is being followed; the numbers are then asked for.
// Closed while the tab is hidden or paused. A caller that is restricted to some queues has no stream: it asks, too.
import { api, parse } from "./api.js";
import { set, state } from "./store.js";

const AGAIN_MS = 2000;

let source = null;
let timer = 0;
let turn = 0; // counts what was opened, so that an answer to what is closed by then is not taken
let tail = null; // {channel, last, onEvent} while a channel is followed

export function start() {
  document.addEventListener("visibilitychange", reopen);
  reopen();
}

export function stop() {
  document.removeEventListener("visibilitychange", reopen);
  close();
}

export function pause(wanted) {
  set({ paused: wanted });
  reopen();
}

// Follows a channel instead of the numbers; returns what ends that. `onEvent(name, data)`.
export function follow(channel, onEvent) {
  tail = { channel, last: "", onEvent };
  reopen();
  return () => {
    tail = null;
    reopen();
  };
}

function close() {
  source?.close();
  source = null;
  clearTimeout(timer);
  turn += 1;
}

function reopen() {
  close();
  if (state.paused || document.hidden) return set({ link: "paused" });
  set({ link: "connecting" });
  if (tail) openTail(tail);
  if (tail || state.session.queues) ask();
  else open("/v1/events", { numbers: taken, outage: away });
}

function open(path, handlers) {
  source = new EventSource(path);
  for (const [name, handle] of Object.entries(handlers)) {
    source.addEventListener(name, (event) => handle(parse(event.data), event.lastEventId));
  }
  source.onopen = () => set({ link: "live" });
  source.onerror = () => {
    set({ link: "connecting" });
    if (source?.readyState === EventSource.CLOSED) later(refused); // an answer that is no stream: not tried again by itself
  };
}

function openTail({ channel, last, onEvent }) {
  const resumed = last ? `?last_event_id=${last}` : "";
  const keep = (name) => (data, id) => {
    if (tail && id) tail.last = id;
    onEvent(name, data);
  };
  open(`/v1/channels/${encodeURIComponent(channel)}/events${resumed}`, { message: keep("message"), gap: keep("gap") });
}

async function refused() {
  await api("GET", "/v1/session").catch((problem) => problem.status === 401 && set({ login: true }));
  if (!state.login) reopen();
}

function later(act) {
  clearTimeout(timer);
  timer = setTimeout(act, AGAIN_MS);
}

async function ask() {
  const asked = turn;
  let answer;
  try {
    answer = await (state.session.queues ? askQueues() : askOnce());
  } catch (problem) {
    answer = () => (problem.status === 503 ? away({ away_s: null, error: problem.message }) : set({ link: "connecting" }));
  }
  if (turn !== asked) return;
  answer();
  if (!state.login) later(ask);
}

async function askOnce() {
  const response = await fetch("/v1/events?limit=1");
  const event = /event: (\w+)\r?\ndata: (.*)/.exec(await response.text());
  return () => event && (event[1] === "numbers" ? taken : away)(JSON.parse(event[2]));
}

async function askQueues() {
  const { queues } = await api("GET", "/v1/queues");
  const sum = (value) => queues.reduce((total, queue) => total + value(queue), 0);
  const most = (values) => (values.some((value) => value !== null) ? Math.max(...values) : null);
  const totals = { p95_ms: most(queues.map((queue) => queue.p95_ms)), oldest_s: most(queues.map((queue) => queue.oldest_s)) };
  for (const name of ["ready", "active", "scheduled", "dead"]) totals[name] = sum((queue) => queue.counts[name]);
  for (const name of ["in_per_s", "done_per_s", "failed_per_s"]) totals[name] = sum((queue) => queue.rates[name]);
  return () => taken({ at_ms: Date.now(), queues, totals, processes: [], channels: [], redis: null });
}

function taken(numbers) {
  set({ numbers, outage: null, link: "live" });
}

function away(outage) {
  set({ outage, link: "live" });
}
