// Addresses of views: `#/sessions/ID?tab=log`. The fragment never leaves the browser and needs nothing of the server.
import { cell } from "./ui/cell.js";

export const route = cell(parse());

addEventListener("hashchange", () => (route.value = parse()));

function parse() {
  const [path, search] = location.hash.replace(/^#/, "").split("?");
  const parts = path.split("/").filter(Boolean).map(decode);
  return { view: parts[0] ?? "sessions", parts: parts.slice(1), query: Object.fromEntries(new URLSearchParams(search)) };
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** The address of a view. */
export function to(view, parts = [], query = {}) {
  const path = [view, ...parts].map(encodeURIComponent).join("/");
  const search = new URLSearchParams(Object.entries(query).filter(([, value]) => value)).toString();
  return `#/${path}${search ? `?${search}` : ""}`;
}

export function go(view, parts, query) {
  location.hash = to(view, parts, query);
}

/** Change the query without a new entry in the history. */
export function refine(query) {
  // Not `route.value`: the event that tells of a new address comes later than the address.
  const { view, parts, query: before } = parse();
  history.replaceState(null, "", to(view, parts, { ...before, ...query }));
  route.value = parse();
}
