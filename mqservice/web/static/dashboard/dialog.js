// Asks before something that cannot be undone: how many it concerns, and the name of the queue, typed.
import { count } from "./format.js";
import { html, useEffect, useRef, useState } from "./html.js";
import { t } from "./i18n.js";
import { queueNamed, set, state } from "./store.js";

// `act(choice)` is called when the name was typed. `choices(counts)`: {state: how many}, of which one is chosen; the
// counts move on while it is asked.
export const confirm = (dialog) => set({ dialog });

export function Dialog() {
  const asked = state.dialog;
  const element = useRef();
  const [typed, setTyped] = useState("");
  const [choice, setChoice] = useState("");
  useEffect(() => {
    if (!asked) return;
    setTyped("");
    setChoice(asked.chosen);
    element.current.showModal();
  }, [asked]);
  if (!asked) return null;
  const close = () => set({ dialog: null });
  const choices = asked.choices(queueNamed(asked.queue)?.counts ?? asked.counts);
  const chosen = choice in choices ? choice : asked.chosen;
  const many = count(choices[chosen]);
  const submit = (event) => {
    event.preventDefault();
    close();
    asked.act(chosen);
  };
  return html`<dialog ref=${element} onClose=${close} aria-labelledby="asked">
    <form onSubmit=${submit}>
      <h2 id="asked">${t(asked.title, { queue: asked.queue })}</h2>
      ${Object.keys(choices).length > 1 && html`
        <label>${t("messages")}
          <select value=${chosen} onChange=${(event) => setChoice(event.target.value)}>
            ${Object.entries(choices).map(([name, its]) => html`<option value=${name}>${t(`state.${name}`)} (${count(its)})</option>`)}
          </select>
        </label>`}
      <p>${t(asked.text, { count: many, state: chosen === "all" ? "" : t(`state.${chosen}`) })}</p>
      <label>${t("type-name", { queue: asked.queue })}
        <input autofocus autocomplete="off" spellcheck=${false} value=${typed} onInput=${(event) => setTyped(event.target.value)} />
      </label>
      <div class="actions">
        <button type="button" onClick=${close}>${t("back")}</button>
        <button class="danger" disabled=${typed !== asked.queue}>${t(asked.verb, { count: many })}</button>
      </div>
    </form>
  </dialog>`;
}
