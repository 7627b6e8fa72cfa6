// The REST API of the origin that the page came from.
import { cell } from "../ui/cell.js";
import { learn } from "../ui/clock.js";

const TOKEN = "footlights.token";
// `/console/` may lie below a proxy's prefix; the API then does too.
const ROOT = `${location.pathname.replace(/\/console\/.*$/, "")}/v1`;

/** Where the API is, for people who call it themselves. */
export const apiAddress = () => location.origin + ROOT;

/** `{token, caller, reason}`: without a token, `reason` says why there is none any more. */
export const identity = cell({ token: null, caller: null, reason: "" });

/** What the API refused, as google.rpc.Status says it. */
export class ApiError extends Error {
  constructor(status, body) {
    super(body?.message || `The server answered ${status}.`);
    this.status = status;
    this.code = body?.code ?? null;
    const details = Array.isArray(body?.details) ? body.details : [];
    const of = (type) => details.find((detail) => String(detail["@type"]).endsWith(type));
    const info = of("google.rpc.ErrorInfo");
    this.reason = info?.reason ?? "";
    this.metadata = info?.metadata ?? {};
    this.violations = of("google.rpc.BadRequest")?.field_violations ?? [];
    if (!this.violations.length && this.metadata.field) {
      this.violations = [{ field: this.metadata.field, description: this.message }];
    }
  }
}

/** Take the token of a pasted `#token=` address, once, and leave no trace of it in the address bar or the history. */
export function takeTokenFromAddress() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    history.replaceState(null, "", location.pathname + location.search);
    sessionStorage.setItem(TOKEN, given);
  }
  identity.value = { token: sessionStorage.getItem(TOKEN), caller: null, reason: "" };
}

export function signIn(token) {
  sessionStorage.setItem(TOKEN, token);
  identity.value = { token, caller: null, reason: "" };
}

export function signOut(reason = "") {
  sessionStorage.removeItem(TOKEN);
  identity.value = { token: null, caller: null, reason };
}

export const may = (permission) => Boolean(identity.value.caller?.permissions?.includes(permission));

/**
 * Call the API; gives the answer's JSON. With `etag` only what has not changed since it was read is changed.
 * Raises ApiError, or a plain Error if the server cannot be reached.
 */
export async function call(method, path, { body, query, signal, etag } = {}) {
  const response = await send(method, path, { body, query, signal, etag, accept: "application/json" });
  const text = await response.text();
  return text ? JSON.parse(text) : {};
}

/** Read a whole list, page by page; gives the last answer with the items of all. */
export async function pages(path, query, signal) {
  const items = [];
  for (let token = ""; ;) {
    const answer = await call("GET", path, { query: { ...query, limit: 1000, page_token: token }, signal });
    items.push(...answer.items);
    token = answer.next_page_token;
    if (!token) return { ...answer, items };
  }
}

/** Follow a server stream: `onMessage` gets every message, until the server ends it or `signal` is aborted. */
export async function follow(path, { query, signal, onMessage }) {
  const response = await send("GET", path, { query, signal, accept: "application/x-ndjson, application/json" });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.trim()) deliver(line, onMessage);
  }
  if (rest.trim()) deliver(rest, onMessage);
}

function deliver(line, onMessage) {
  const { result, error } = JSON.parse(line);
  if (error) throw new ApiError(error.code === 16 ? 401 : 0, error);
  onMessage(result);
}

async function send(method, path, { body, query, signal, etag, accept }) {
  const { token } = identity.value;
  const headers = { Accept: accept };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (etag) headers["If-Match"] = `"${etag}"`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(ROOT + path + searchOf(query), {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
      credentials: "omit",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server cannot be reached. It may be restarting, or the network is down.");
  }
  learn(response.headers.get("date"));
  if (response.ok) return response;
  const failure = new ApiError(response.status, await statusOf(response));
  // Only the token that was refused is thrown away: the user may have signed in again meanwhile.
  if (response.status === 401 && token && token === identity.value.token) signOut(failure.message);
  throw failure;
}

async function statusOf(response) {
  try {
    const body = await response.json();
    return body.error ?? body;
  } catch {
    return null;
  }
}

function searchOf(query) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined && one !== null && one !== "") search.append(name, one);
    }
  }
  const text = search.toString();
  return text ? `?${text}` : "";
}

/** A random id. `crypto.randomUUID` is only there on secure origins, and consoles are opened over plain HTTP too. */
export const newId = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

export const sessionPath = (id, rest = "") => `/sessions/${encodeURIComponent(id)}${rest}`;
