// Plays a session again and again until it is told to stop, or no other attempt can help: what all players share.
//
// A player has `play(ending)`, which connects and plays and returns the error that ended it, and `release({keepalive})`,
// which lets go of all that it holds and returns a function that tells whether the viewer was disconnected by a call.
// Events: `state` {state, reason, attempt, retryIn}, where state is connecting, playing, waiting, failed or stopped, and
// attempt is 0 where it has played just before;
// `stats`, once a second while it plays; `message`, what the application says.

const FIRST_DELAY = 1000;
const LAST_DELAY = 10_000;

/** Why an attempt failed. `final` where another attempt cannot help. */
export class PlayerError extends Error {
  constructor(message, { final = false } = {}) {
    super(message);
    this.final = final;
  }
}

export class Attempts extends EventTarget {
  #running = null;

  start() {
    if (this.#running) return;
    this.#running = new AbortController();
    addEventListener("pagehide", () => this.release({ keepalive: true }), { signal: this.#running.signal });
    this.#run(this.#running.signal);
  }

  stop() {
    if (!this.#running) return;
    this.#running.abort();
    this.#running = null;
    this.release({ keepalive: true });
    this.say("stopped");
  }

  async #run(ending) {
    let delay = FIRST_DELAY;
    for (let attempt = 1; !ending.aborted; attempt += 1) {
      this.say("connecting", { attempt });
      try {
        const end = await this.play(ending);
        delay = FIRST_DELAY;
        attempt = 0;
        throw end;
      } catch (error) {
        if (ending.aborted) return;
        const wasDisconnected = this.release({ keepalive: false });
        if (error.final) return this.say("failed", { reason: error.message });
        // By a call: then it is not for the page to come back by itself.
        if (await wasDisconnected()) return this.say("failed", { reason: "You were disconnected from this session." });
        if (ending.aborted) return;
        this.say("waiting", { reason: error.message, attempt, retryIn: delay / 1000 });
      }
      await pause(delay, ending);
      delay = Math.min(delay * 2, LAST_DELAY);
    }
  }

  say(state, { reason = "", attempt = 0, retryIn = 0 } = {}) {
    this.emit("state", { state, reason, attempt, retryIn });
  }

  emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

const LOOPBACK = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/;

/** localhost and 127.0.0.1 are one server, but two origins. */
export function reachable(address) {
  const same = LOOPBACK.test(address.hostname) && LOOPBACK.test(location.hostname) && address.port === location.port;
  return same ? ownOrigin(address) : address;
}

/**
 * The same path at the page's own origin: behind a proxy the server may not know the name that the page was opened by,
 * nor the prefix that the proxy puts before every path.
 */
export function ownOrigin(address, page = location) {
  const [, prefix = ""] = page.pathname.match(/^(.*)\/console\//) ?? [];
  const path = prefix && !address.pathname.startsWith(`${prefix}/`) ? prefix + address.pathname : address.pathname;
  return new URL(path + address.search, page.origin);
}

function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    }, { once: true });
  });
}
