// Numbers, spans and times as people of the chosen language write them.
import { language, t } from "./i18n.js";

const NONE = "–";
const formats = new Map();

function number(value, options) {
  const key = language + JSON.stringify(options);
  if (!formats.has(key)) formats.set(key, new Intl.NumberFormat(language, options));
  return formats.get(key).format(value);
}

export const count = (value) => (value === null || value === undefined ? NONE : number(value, { maximumFractionDigits: 0 }));
export const rate = (value) => number(value, value > 0 && value < 10 ? { minimumFractionDigits: 1, maximumFractionDigits: 1 } : { maximumFractionDigits: 0 });
export const millis = (value) => (value === null || value === undefined ? NONE : number(value, value < 10 ? { maximumSignificantDigits: 2 } : { maximumFractionDigits: 0 }));
export const megabytes = (bytes) => `${number(bytes / 2 ** 20, { maximumFractionDigits: bytes < 2 ** 24 ? 1 : 0 })} MB`;

const SPANS = [["day", 86400], ["hour", 3600], ["minute", 60]];

// Seconds in at most two units: 0.03 s, 42 s, 5 min 3 s, 2 h 10 min.
export function span(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  if (seconds < 0.001) return `0 ${t("second")}`;
  if (seconds < 60) return `${number(seconds, { maximumSignificantDigits: 2 })} ${t("second")}`;
  const at = SPANS.findIndex(([, length]) => seconds >= length);
  const [unit, length] = SPANS[at];
  const [smaller, part] = SPANS[at + 1] ?? ["second", 1];
  const rest = Math.floor((seconds % length) / part);
  return `${Math.floor(seconds / length)} ${t(unit)}${rest ? ` ${rest} ${t(smaller)}` : ""}`;
}

const asDate = (moment) => new Date(moment);

export function clock(moment) {
  return moment ? asDate(moment).toLocaleTimeString(language, { hour12: false }) : NONE;
}

// Date and time, where the reader is.
export function full(moment) {
  if (!moment) return NONE;
  const options = { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" };
  return asDate(moment).toLocaleString(language, options);
}

// How far from now, by the clock of Redis where it is known.
export function ago(moment, now = Date.now()) {
  if (!moment) return NONE;
  const seconds = Math.round((now - asDate(moment)) / 1000);
  return seconds >= 0 ? t("ago", { span: span(seconds) }) : t("until", { span: span(-seconds) });
}

export function json(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}

// A body in one line.
export function brief(value, most = 80) {
  const text = typeof value === "string" ? value : JSON.stringify(value) ?? "";
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}
