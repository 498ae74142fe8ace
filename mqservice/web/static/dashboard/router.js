// Where the page is: #/queues/mails?state=dead is {path: ["queues", "mails"], query: {state: "dead"}}.
import { set } from "./store.js";

export function current() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  return {
    path: path.split("/").filter(Boolean).map(decodeURIComponent),
    query: Object.fromEntries(new URLSearchParams(query)),
  };
}

// A reader of the screen hears where it is.
const focusHeading = () => document.querySelector("h1")?.focus({ preventScroll: true });

export function watch() {
  addEventListener("hashchange", () => {
    set({ route: current() });
    scrollTo(0, 0);
    queueMicrotask(focusHeading); // after it is drawn
  });
  set({ route: current() });
}
