// Starts the page: words first, then who one is, then the stream; draws everything again whenever the store changes.
import { api } from "./api.js";
import { App } from "./app.js";
import { html, render } from "./html.js";
import { preferred, speak } from "./i18n.js";
import * as live from "./live.js";
import { watch } from "./router.js";
import { onChange, set, state } from "./store.js";

let due = false;

// Once for all changes of a turn, and never in the middle of drawing.
function drawSoon() {
  if (!due) queueMicrotask(draw);
  due = true;
}

function draw() {
  due = false;
  render(html`<${App} onSession=${begin} />`, document.body);
}

function begin(session) {
  set({ session, login: false });
  live.start();
}

async function whoAmI() {
  try {
    begin(await api("GET", "/v1/session"));
  } catch (problem) {
    if (problem.status === 401) set({ login: true });
    else setTimeout(whoAmI, 2000);
  }
}

const session = whoAmI();
await speak(preferred());
watch();
onChange(drawSoon);
draw();
await session;
