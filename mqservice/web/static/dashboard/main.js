// Starts the page: words first, then who one is, then the stream; draws everything again whenever the store changes.
import { api } from "./api.js";
import { App } from "./app.js";
import { html, render, useEffect, useState } from "./html.js";
import { preferred, speak } from "./i18n.js";
import * as live from "./live.js";
import { watch } from "./router.js";
import { onChange, set, state } from "./store.js";

function Root() {
  const [, draw] = useState(0);
  useEffect(() => onChange(() => draw((drawn) => drawn + 1)), []);
  return html`<${App} onSession=${begin} />`;
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
render(html`<${Root} />`, document.body);
await session;
