// Where the page is: #/queues/mails?state=dead is {path: ["queues", "mails"], query: {state: "dead"}}.
import { set } from "./store.js";

export function current() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  return {
    path: path.split("/").filter(Boolean).map(decodeURIComponent),
    query: Object.fromEntries(new URLSearchParams(query)),
  };
}

export function watch() {
  addEventListener("hashchange", () => {
    set({ route: current() });
    scrollTo(0, 0);
    document.querySelector("h1")?.focus({ preventScroll: true }); // a reader of the screen hears where it is
  });
  set({ route: current() });
}
