// The head of the page: where one can go, whether it is live, colours, language, who one is.
import { api } from "./api.js";
import { html } from "./html.js";
import { LANGUAGES, choose, language, t } from "./i18n.js";
import * as live from "./live.js";
import { set, state } from "./store.js";

const PAGES = ["overview", "messages", "channels", "schedules"];
const THEMES = ["auto", "light", "dark"];

export function Head() {
  const { session, route } = state;
  const here = { queues: "messages" }[route.path[0]] ?? route.path[0] ?? "overview";
  return html`<header>
    <a class="name" href="#/">mqservice</a>
    <nav aria-label=${t("pages")}>
      ${PAGES.map((page) => html`<a href=${page === "overview" ? "#/" : `#/${page}`} aria-current=${page === here ? "page" : null}>${t(page)}</a>`)}
      <a href="/docs">${t("docs")}</a>
    </nav>
    <div class="settings">
      ${session && html`<${Link} />`}
      <${Theme} />
      <select aria-label=${t("language")} value=${language} onChange=${(event) => choose(event.target.value)}>
        ${Object.entries(LANGUAGES).map(([tag, name]) => html`<option value=${tag} lang=${tag}>${name}</option>`)}
      </select>
      ${session?.name && html`<button type="button" onClick=${leave} title=${session.scopes.join(", ")}>${t("leave", { name: session.name })}</button>`}
    </div>
  </header>`;
}

// Whether the numbers move, and the switch that holds them still.
function Link() {
  const shown = state.outage ? "away" : state.link;
  return html`<button type="button" class="link ${shown}" aria-pressed=${String(state.paused)} title=${t("freeze")} onClick=${() => live.pause(!state.paused)}>
    <i></i>${t(`link.${shown}`)}
  </button>`;
}

function Theme() {
  const root = document.documentElement.dataset;
  const change = (event) => {
    root.theme = event.target.value;
    localStorage.setItem("theme", root.theme);
    dispatchEvent(new Event("recolour"));
    set({});
  };
  return html`<select aria-label=${t("theme")} value=${root.theme} onChange=${change}>
    ${THEMES.map((name) => html`<option value=${name}>${t(`theme.${name}`)}</option>`)}
  </select>`;
}

async function leave() {
  await api("DELETE", "/v1/session").catch(() => {});
  live.stop();
  set({ session: null, numbers: null, login: true });
}
