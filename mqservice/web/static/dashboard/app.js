// The frame around every view: head, banner, the view of the route, what is said and asked.
import { Dialog } from "./dialog.js";
import { span } from "./format.js";
import { Head } from "./head.js";
import { html } from "./html.js";
import { t } from "./i18n.js";
import { state } from "./store.js";
import { Channels } from "./views/channels.js";
import { Login } from "./views/login.js";
import { MessagePage } from "./views/message.js";
import { Messages } from "./views/messages.js";
import { Overview } from "./views/overview.js";
import { QueuePage } from "./views/queue.js";
import { Schedules } from "./views/schedules.js";

function view({ path: [first, name, second, id], query }) {
  if (first === "queues" && second === "messages" && id) return html`<${MessagePage} key=${id} queue=${name} id=${id} />`;
  if (first === "queues" && name) return html`<${QueuePage} key=${name} name=${name} query=${query} />`;
  if (first === "channels") return html`<${Channels} name=${name} />`;
  if (first === "messages") return html`<${Messages} query=${query} />`;
  if (first === "schedules") return html`<${Schedules} />`;
  return html`<${Overview} />`;
}

export function App({ onSession }) {
  const { session, login, numbers, route, toast } = state;
  let main = html`<p class="none" role="status">${t("connecting")}</p>`;
  if (login) main = html`<${Login} onSession=${onSession} />`;
  else if (session && (numbers || state.outage)) main = view(route);
  return html`
    <a class="skip" href="#main" onClick=${toMain}>${t("skip")}</a>
    <${Head} />
    <${Banner} />
    <main id="main" tabindex="-1">${main}</main>
    <div class="toast ${toast ? "shown" : ""} ${toast?.bad ? "bad" : ""}" role=${toast?.bad ? "alert" : "status"}>${toast?.text}</div>
    <${Dialog} />`;
}

// A plain link to #main would be taken for a route.
function toMain(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

function Banner() {
  const { outage, link, session } = state;
  let text = "";
  if (outage) text = t("redis-away", { span: outage.away_s === null ? "" : span(outage.away_s) });
  else if (session && link === "connecting") text = t("service-away");
  return html`<div role="alert" class="banner ${text ? "shown" : ""}">${text && html`<b>${text}</b> ${outage && html`<span>${t("redis-away-more")}</span> <small>${outage.error}</small>`}`}</div>`;
}
