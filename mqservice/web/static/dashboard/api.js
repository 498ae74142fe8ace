// The public API, as anybody may use it, and the curl lines that do the same.
import { set, state } from "./store.js";

export class Problem extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? String(status));
    this.status = status;
    this.code = problem.type?.split("/").pop() ?? "";
  }
}

// Returns the JSON of an answer, null of an empty one. Throws Problem; of status 0 when nobody answered.
export async function api(method, path, { body, type, headers } = {}) {
  const options = { method, body, headers: { ...(type && { "Content-Type": type }), ...headers } };
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    throw new Problem(0, { detail: error.message });
  }
  const text = await response.text();
  const found = text && /json/.test(response.headers.get("Content-Type")) ? parse(text) : null;
  if (response.ok) return found;
  if (response.status === 401 && path !== "/v1/session") set({ login: true });
  throw new Problem(response.status, found ?? {});
}

// JSON, with whole numbers beyond 2^53 kept to the last digit where the browser can: ids are often such.
const exact = (_, value, { source } = {}) => (Number.isInteger(value) && !Number.isSafeInteger(value) && source && JSON.rawJSON ? JSON.rawJSON(source) : value);
export const parse = (text) => JSON.parse(text, exact);

export const messagePath = (queue, id) => `/v1/queues/${queue}/messages${id ? `/${id}` : ""}`;
export const pagePath = (queue, id) => `#/queues/${queue}${id ? `/messages/${id}` : ""}`;

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

// The curl line of a request. A body that is no JSON goes byte for byte: as text, or from its base64.
export function curl(method, path, { body, base64, type = "application/json" } = {}) {
  const words = ["curl"];
  if (path.endsWith("/events")) words.push("-N");
  const sends = body !== undefined || base64 !== undefined;
  if (method !== (sends ? "POST" : "GET")) words.push("-X", method);
  const lines = [[...words, quoted(location.origin + path)].join(" ")];
  if (state.session?.name) lines.push('-H "Authorization: Bearer $MQSERVICE_TOKEN"');
  if (sends && type !== "application/json") lines.push(`-H ${quoted(`Content-Type: ${type}`)}`);
  if (base64 !== undefined) lines.push("--data-binary @-");
  else if (sends) lines.push(`${type === "application/json" ? "--json" : "--data-raw"} ${quoted(body)}`);
  if (base64 !== undefined) lines[0] = `echo ${base64} | base64 -d | ${lines[0]}`;
  return lines.join(" \\\n  ");
}

// The media type that text is sent as.
export function typeOf(text) {
  try {
    JSON.parse(text);
    return "application/json";
  } catch {
    return "text/plain";
  }
}
