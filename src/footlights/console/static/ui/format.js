// Text for people. Pure.

/** Seconds of a JSON Duration (`"3.5s"`); null where there is none. */
export function seconds(duration) {
  if (typeof duration !== "string" || !duration.endsWith("s")) return null;
  const value = Number(duration.slice(0, -1));
  return Number.isFinite(value) ? value : null;
}

/** A length of time with one or two units: `0.8 s`, `42 s`, `3 min 5 s`, `2 h 10 min`, `4 d`. */
export function span(value) {
  if (value === null || Number.isNaN(value)) return "";
  const s = Math.max(0, value);
  if (s < 9.95) return `${s.toFixed(1)} s`;
  if (s < 60) return `${Math.floor(s)} s`;
  const whole = Math.floor(s);
  if (s < 3600) return join(Math.floor(whole / 60), "min", whole % 60, "s");
  if (s < 86400) return join(Math.floor(whole / 3600), "h", Math.floor((whole % 3600) / 60), "min");
  return join(Math.floor(whole / 86400), "d", Math.floor((whole % 86400) / 3600), "h");
}

function join(major, majorUnit, minor, minorUnit) {
  return minor ? `${major} ${majorUnit} ${minor} ${minorUnit}` : `${major} ${majorUnit}`;
}

/** One unit is enough for "how long ago". */
export function ago(time, now) {
  const s = (now - Date.parse(time)) / 1000;
  if (Number.isNaN(s)) return "";
  if (s < 5) return "just now";
  if (s < 60) return `${Math.floor(s)} s ago`;
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ago`;
  return `${Math.floor(s / 86400)} d ago`;
}

const moments = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** A moment in the reader's own zone. */
export function moment(time) {
  const at = Date.parse(time ?? "");
  return Number.isNaN(at) ? "" : moments.format(at);
}

/** Bytes with a binary unit, and at most one decimal: `47.5 GiB`. */
export function bytes(value) {
  if (value === null || value === undefined || value === "") return "";
  let n = Number(value);
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) {
    n /= 1024;
    unit += 1;
  }
  return `${n >= 100 || Number.isInteger(n) ? Math.round(n) : n.toFixed(1)} ${units[unit]}`;
}

/** An enum name as a word: `APPLICATION_READY` becomes `Application ready`. */
export function words(name) {
  if (!name) return "";
  if (name.length < 3) return name;
  const text = name.toLowerCase().replaceAll("_", " ");
  return text[0].toUpperCase() + text.slice(1);
}

/** `1 device`, `2 devices`. */
export const count = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;

/** The last part of a path or URL: what a stage is called. */
export function basename(uri) {
  const path = String(uri ?? "").split(/[?#]/)[0].replace(/\/+$/, "");
  return path.slice(path.lastIndexOf("/") + 1);
}

/** The start of an id that tells it from its neighbours: ids are time-ordered, so the end varies most. */
export const shortId = (id) => (id && id.length > 12 ? `…${id.slice(-8)}` : id ?? "");

/** Whether the end of a session is overdue, by its status message. */
export const overdue = ({ state, status_message: message }) => state === "TERMINATING" && /\boverdue\b/i.test(message ?? "");
