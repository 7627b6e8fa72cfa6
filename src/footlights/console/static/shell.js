// What stands around every view: where one can go, who one is, whether the page is live.
import { identity, may, signOut } from "./api/api.js";
import { cell, useCell } from "./ui/cell.js";
import { html, useEffect } from "./ui/html.js";
import { Icon, Mark } from "./ui/icons.js";
import { words } from "./ui/format.js";
import { route, to } from "./router.js";
import { hasEnded, link, sessions } from "./api/watch.js";
import { useFailures } from "./failures.js";

const PLACES = [
  { view: "sessions", name: "Sessions", permission: "sessions.read" },
  { view: "applications", name: "Applications", permission: "applications.read" },
  { view: "nodes", name: "Nodes", permission: "nodes.read" },
  { view: "tokens", name: "Tokens", permission: "tokens.read" },
];

export function Shell({ children }) {
  const { caller } = useCell(identity);
  const { view, parts } = useCell(route);
  const live = [...useCell(sessions).values()].filter((session) => !hasEnded(session)).length;
  useFailures();
  useEffect(() => {
    document.title = `${PLACES.find((place) => place.view === view)?.name ?? "Start a session"} · Footlights`;
    document.getElementById("view")?.scrollTo(0, 0);
    scrollTo(0, 0);
  }, [view, parts[0]]);

  const skip = (event) => {
    event.preventDefault();
    document.getElementById("view").focus();
  };
  return html`<div class="shell">
    <a class="skip" href="#view" onClick=${skip}>Skip to content</a>
    <aside class="side">
      <a class="brand" href=${to("sessions")}><${Mark} /><span>Footlights</span></a>
      <nav aria-label="Main">
        ${PLACES.filter((place) => may(place.permission)).map((place) => html`
          <a key=${place.view} class="place" href=${to(place.view)} data-testid=${`nav-${place.view}`}
              aria-current=${view === place.view || (place.view === "sessions" && view === "start") ? "page" : null}>
            <${Icon} name=${place.view} size=${18} /><span>${place.name}</span>
            ${place.view === "sessions" && live > 0 && html`<b class="tally">${live}</b>`}
          </a>`)}
      </nav>
      <div class="side-end">
        <${Link} />
        <div class="who" title=${`Server ${caller.server_version}`}>
          <span class="who-face" aria-hidden="true">${(caller.subject || "?")[0].toUpperCase()}</span>
          <span class="who-name"><strong>${caller.subject}</strong><span>${words(caller.role)}</span></span>
          <${Theme} />
          <button class="icon-button" title="Sign out" aria-label="Sign out" data-testid="sign-out" onClick=${() => signOut()}>
            <${Icon} name="out" /></button>
        </div>
      </div>
    </aside>
    <main class="view" id="view" tabindex="-1">${children}</main>
  </div>`;
}

function Link() {
  const { state, reason } = useCell(link);
  const text = { live: "Live", connecting: "Connecting…", waiting: "Not live: reconnecting" }[state];
  return html`<div class=${`link link-${state}`} role="status" title=${reason} data-testid="link"><i></i><span>${text}</span></div>`;
}

const THEMES = ["system", "light", "dark"];
const theme = cell(document.documentElement.dataset.theme ?? "system");

function Theme() {
  const now = useCell(theme);
  const next = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
  const change = () => {
    theme.value = next;
    if (next === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    try {
      if (next === "system") localStorage.removeItem("footlights.theme");
      else localStorage.setItem("footlights.theme", next);
    } catch {
      // It then holds for this page only.
    }
  };
  const icon = { system: "system", light: "sun", dark: "moon" }[now];
  return html`<button class="icon-button" data-testid="theme" onClick=${change} title=${`Theme: ${now}`}
    aria-label=${`Theme: ${now}. Change to ${next}.`}><${Icon} name=${icon} /></button>`;
}
