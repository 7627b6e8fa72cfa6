// Every session that the caller may see, by one streamed fetch for the whole page.
import { call, follow, identity, sessionPath } from "./api.js";
import { cell } from "../ui/cell.js";

/** Sessions by id. */
export const sessions = cell(new Map());
/** Whether the sessions that had not ended when the page was opened are all there. */
export const loaded = cell(false);
/** `connecting`, `live`, or `waiting` (with `reason`), for the small light in the corner. */
export const link = cell({ state: "connecting", reason: "" });

export const ENDED_STATES = new Set(["TERMINATED", "FAILED"]);
export const hasEnded = (session) => ENDED_STATES.has(session.state) || Boolean(session.ended_time);

const FIRST_DELAY = 500;
const LAST_DELAY = 10_000;
// A browser opens six HTTP/1.1 connections to an origin: a hidden page closes its own.
const HIDDEN_FOR = 20_000;

// The server cannot go on there: what changed is not kept, or another release or key made the cursor.
const UNUSABLE_CURSOR = new Set(["CURSOR_GONE", "INVALID_CURSOR"]);
// A watch that has lasted this long was no failure, however it ended.
const LASTED = 3000;
// A page may stay open for weeks: of the sessions that have ended those heard of last are kept.
const MOST_ENDED = 500;

let known = new Map();
let drawing = 0;

/** Watch until `signal` is aborted. */
export async function watch(signal) {
  known = new Map();
  sessions.value = known;
  loaded.value = false;
  link.value = { state: "connecting", reason: "" };
  let delay = FIRST_DELAY;
  let cursor = "";
  while (!signal.aborted) {
    await visible(signal);
    const attempt = new AbortController();
    const stopWhenHidden = whenHiddenFor(HIDDEN_FOR, () => attempt.abort());
    const began = performance.now();
    // Without a cursor all sessions come again: those that do not have gone meanwhile.
    const told = cursor ? null : new Set();
    try {
      await follow("/sessions:watch", {
        query: { cursor },
        signal: AbortSignal.any([signal, attempt.signal]),
        onMessage: (frame) => {
          cursor = frame.cursor;
          if (link.value.state !== "live") link.value = { state: "live", reason: "" };
          take(frame, told);
        },
      });
      link.value = { state: "connecting", reason: "" };
    } catch (error) {
      if (signal.aborted || !identity.value.token) return;
      if (UNUSABLE_CURSOR.has(error.reason)) cursor = "";
      if (!attempt.signal.aborted) link.value = { state: "waiting", reason: error.message };
    } finally {
      stopWhenHidden();
    }
    if (performance.now() - began > LASTED) delay = FIRST_DELAY;
    await pause(delay, signal);
    delay = Math.min(delay * 2, LAST_DELAY);
  }
}

function take({ change, session }, told) {
  if (change === "SET") {
    told?.add(session.session_id);
    put(session);
  } else if (change === "REMOVED") {
    known.delete(session.session_id);
    redraw();
  } else if (change === "SYNCED") {
    // What has ended is not told again, and stays.
    for (const one of known.values()) if (told && !told.has(one.session_id) && !hasEnded(one)) known.delete(one.session_id);
    loaded.value = true;
    redraw();
  }
}

/** Take a session from whatever answer it came in, unless a newer one is known. */
export function put(session) {
  const before = known.get(session.session_id);
  if (before && BigInt(before.revision ?? 0) > BigInt(session.revision ?? 0)) return;
  // The map is in the order of the changes.
  known.delete(session.session_id);
  known.set(session.session_id, session);
  redraw();
}

// A thousand sessions arrive at once at the start: draw them once.
function redraw() {
  if (!drawing) drawing = setTimeout(draw, 16);
}

function draw() {
  drawing = 0;
  const ended = [...known.values()].filter(hasEnded);
  for (const { session_id: id } of ended.slice(0, Math.max(0, ended.length - MOST_ENDED))) known.delete(id);
  sessions.value = new Map(known);
}

/** Read one session that the watch did not bring, such as one that ended before it began. */
export async function read(id, signal) {
  const session = await call("GET", sessionPath(id), { signal });
  put(session);
  return session;
}

function visible(signal) {
  if (document.visibilityState === "visible") return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      if (document.visibilityState !== "visible" && !signal.aborted) return;
      document.removeEventListener("visibilitychange", done);
      resolve();
    };
    document.addEventListener("visibilitychange", done);
    signal.addEventListener("abort", done, { once: true });
  });
}

function whenHiddenFor(ms, action) {
  let timer = 0;
  const look = () => {
    clearTimeout(timer);
    if (document.visibilityState === "hidden") timer = setTimeout(action, ms);
  };
  document.addEventListener("visibilitychange", look);
  return () => {
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", look);
  };
}

function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    const now = () => {
      clearTimeout(timer);
      resolve();
    };
    signal.addEventListener("abort", now, { once: true });
    addEventListener("online", now, { once: true });
  });
}
