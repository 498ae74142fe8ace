// The words of the page: one dictionary a language, fetched when it is wanted.
import { set } from "./store.js";

export const LANGUAGES = { en: "English", "zh-CN": "中文" };

let words = {};
export let language = "en";

// The text of a key; {name} in it becomes `values.name`.
export function t(key, values = {}) {
  if (!(key in words)) console.error(`no word for ${key}`);
  return (words[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

export async function speak(wanted) {
  const response = await fetch(`/static/dashboard/words/${wanted}.json`);
  words = await response.json();
  language = document.documentElement.lang = wanted;
  set({});
}

export function choose(wanted) {
  localStorage.setItem("language", wanted);
  return speak(wanted);
}

export function preferred() {
  const chosen = localStorage.getItem("language") ?? navigator.languages.find((tag) => /^(en|zh)/.test(tag)) ?? "en";
  return chosen.startsWith("zh") ? "zh-CN" : "en";
}
