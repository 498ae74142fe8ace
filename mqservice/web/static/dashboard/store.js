// What the whole page knows. Views read `state`; `set` changes it and has everything drawn again.

export const state = {
  session: null, // who one is, null until known
  login: false, // the API wants a token first
  numbers: null, // the latest of /v1/events
  outage: null, // while Redis is away: {away_s, error}
  link: "connecting", // live | connecting | paused
  paused: false, // held still by hand
  route: null, // where the page is, see router.js
  toast: null, // {text, bad}
  dialog: null, // what is asked, see dialog.js
};

let changed = () => {};

export function set(changes) {
  Object.assign(state, changes);
  changed();
}

export const onChange = (call) => (changed = call);

export const can = (scope) => state.session?.scopes.includes(scope) ?? false;
export const queueNamed = (name) => state.numbers?.queues.find((queue) => queue.name === name);

// Where an example goes: to the demo's queue, or to any.
export const firstQueue = () => (queueNamed("echo") ?? state.numbers?.queues[0])?.name ?? "echo";

let fading;
export function toast(text, bad = false) {
  set({ toast: { text, bad } });
  clearTimeout(fading);
  fading = setTimeout(() => set({ toast: null }), bad ? 8000 : 4000);
}
