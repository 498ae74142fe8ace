// Asks for a token and opens a session with it: a cookie that no page can read.
import { api } from "../api.js";
import { html, useState } from "../html.js";
import { t } from "../i18n.js";

export function Login({ onSession }) {
  const [token, setToken] = useState("");
  const [problem, setProblem] = useState("");
  const enter = async (event) => {
    event.preventDefault();
    try {
      onSession(await api("POST", "/v1/session", { headers: { Authorization: `Bearer ${token.trim()}` } }));
    } catch (refused) {
      setProblem(refused.status === 401 ? t("login-wrong") : refused.message);
    }
  };
  return html`<form class="card login" onSubmit=${enter}>
    <h1 tabindex="-1">${t("login-title")}</h1>
    <p class="soft">${t("login-text")}</p>
    <label>${t("token")}
      <input type="password" required autocomplete="current-password" value=${token} onInput=${(event) => setToken(event.target.value)} aria-describedby="login-problem" />
    </label>
    <p id="login-problem" class="text-red" role="alert">${problem}</p>
    <button class="primary">${t("login")}</button>
  </form>`;
}
