// All sessions: active ones, as they change; ended ones, page by page.
import { call, may } from "../../api/api.js";
import { useCell } from "../../ui/cell.js";
import { useNow } from "../../ui/clock.js";
import { basename, count, overdue, seconds, shortId, span, words } from "../../ui/format.js";
import { html, useEffect, useMemo, useState } from "../../ui/html.js";
import { EmptyStage, Icon } from "../../ui/icons.js";
import { Ago, Empty, Skeleton, State, Trouble } from "../../ui/parts.js";
import { go, refine, route, to } from "../../router.js";
import { hasEnded, loaded, sessions } from "../../api/watch.js";
import { Progress } from "./timeline.js";

const ACTIVE = ["PENDING", "STARTING", "READY", "ACTIVE", "TERMINATING"];
const ENDED = ["FAILED", "TERMINATED"];
const PAGE = 50;
const FIRST_ROWS = 200;

export function Sessions() {
  const { query } = useCell(route);
  const past = query.tab === "history";
  return html`<header class="head">
      <h1>Sessions</h1>
      <div class="tabs" role="group" aria-label="Which sessions">
        <a href=${to("sessions")} aria-current=${past ? null : "true"}>Live</a>
        <a href=${to("sessions", [], { tab: "history" })} aria-current=${past ? "true" : null} data-testid="history">History</a>
      </div>
      <div class="head-end">${may("sessions.create") && html`<${StartButton} />`}</div>
    </header>
    ${past ? html`<${History} key="history" query=${query} />` : html`<${Live} key="live" query=${query} />`}`;
}

const StartButton = () => html`
  <a class="button primary" href=${to("start")} data-testid="start-session"><${Icon} name="plus" /> Start a session</a>`;

function Live({ query }) {
  const all = useCell(sessions);
  const ready = useCell(loaded);
  const active = useMemo(
    () => [...all.values()].filter((session) => !hasEnded(session))
      .sort((one, other) => (one.created_time < other.created_time ? 1 : -1)),
    [all],
  );
  const found = active.filter((session) => matches(session, query));
  const [most, setMost] = useState(FIRST_ROWS);
  if (!ready && !active.length) return html`<${Skeleton} rows=${5} />`;
  if (!active.length) {
    return html`<${Empty} art=${html`<${EmptyStage} />`} title="The stage is dark"
      action=${may("sessions.create") && html`<${StartButton} />`}>
      No session is running. Start an application, and its picture appears here.</${Empty}>`;
  }
  return html`<${Filters} query=${query} of=${active} states=${ACTIVE} />
    ${found.length ? html`<${Table} of=${found.slice(0, most)} />` : html`<${NothingMatches} />`}
    ${found.length > most && html`<div class="more"><button class="button" onClick=${() => setMost(most + FIRST_ROWS)}>Show more (${found.length - most})</button></div>`}`;
}

const matches = (session, { state, application, user, search }) =>
  (!state || session.state === state) && (!application || session.application === application)
  && (!user || session.username.toLowerCase().includes(user.toLowerCase()))
  && (!search || holds(session, search.toLowerCase()));

// What `search` of the API means, for the sessions that are here already.
const holds = (session, part) => (part.length > 5 && session.session_id.includes(part))
  || [session.application, session.username, ...Object.values(session.labels ?? {})]
    .some((text) => text?.toLowerCase().includes(part));

const NothingMatches = () => html`<${Empty} title="Nothing matches"
  action=${html`<button class="button" onClick=${() => refine({ state: "", application: "", user: "", search: "" })}>Clear the filters</button>`}>
  No session fits these filters.</${Empty}>`;

function History({ query }) {
  const [pages, setPages] = useState({ items: [], next: "", count: null, busy: true, error: null });
  const { state, application, user, search } = query;

  const more = async (before, signal) => {
    setPages({ ...before, busy: true, error: null });
    try {
      const answer = await call("GET", "/sessions", {
        signal,
        query: {
          state: state ? [state] : ENDED, application, username: user, search: (search ?? "").length > 2 ? search : "",
          limit: PAGE, order_by: "created_time desc", page_token: before.next,
        },
      });
      setPages({
        items: [...before.items, ...answer.items], next: answer.next_page_token, busy: false, error: null,
        count: answer.count, capped: answer.count_is_capped,
      });
    } catch (error) {
      if (!signal?.aborted) setPages({ ...before, busy: false, error });
    }
  };
  useEffect(() => {
    const ending = new AbortController();
    more({ items: [], next: "", count: null }, ending.signal);
    return () => ending.abort();
  }, [state, application, user, search]);

  const { items, next, busy, error } = pages;
  return html`<${Filters} query=${query} of=${items} states=${ENDED} exactUser
      note=${pages.count === null ? "" : `${pages.capped ? "more than " : ""}${count(pages.count, "session")}`} />
    ${error && html`<${Trouble} error=${error} onRetry=${() => more(pages)} />`}
    ${items.length > 0 && html`<${Table} of=${items} past />`}
    ${busy && !items.length && html`<${Skeleton} rows=${6} />`}
    ${!busy && !error && !items.length && (state || application || user || search
      ? html`<${NothingMatches} />`
      : html`<${Empty} art=${html`<${EmptyStage} />`} title="No history yet">Ended sessions are listed here, with the reason.</${Empty}>`)}
    ${next && html`<div class="more"><button class="button" disabled=${busy} onClick=${() => more(pages)}>Show more</button></div>`}`;
}

// A filter that is being typed: it goes into the address after a pause.
function useTyped(name, query, delay) {
  const [text, setText] = useState(query[name] ?? "");
  useEffect(() => {
    if (text === (query[name] ?? "")) return undefined;
    const timer = setTimeout(() => refine({ [name]: text }), delay);
    return () => clearTimeout(timer);
  }, [text]);
  useEffect(() => setText(query[name] ?? ""), [query[name]]);
  return [text, setText];
}

function Filters({ query, of, states, note = "", exactUser = false }) {
  // The server is asked only after a pause in typing; filtering here costs nothing.
  const delay = exactUser ? 400 : 0;
  const [user, setUser] = useTyped("user", query, delay);
  const [search, setSearch] = useTyped("search", query, delay);
  const applications = [...new Set([...of.map((session) => session.application), query.application].filter(Boolean))].sort();
  return html`<div class="filters" role="search">
    <div class="chips" role="group" aria-label="State">
      ${states.map((state) => html`<button key=${state} class="chip" aria-pressed=${query.state === state}
        onClick=${() => refine({ state: query.state === state ? "" : state })}>${words(state)}
        ${!exactUser && html`<b>${of.filter((session) => session.state === state).length}</b>`}</button>`)}
    </div>
    <select class="select" aria-label="Application" value=${query.application ?? ""}
        onChange=${(event) => refine({ application: event.target.value })}>
      <option value="">All applications</option>
      ${applications.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}
    </select>
    <label class="search"><${Icon} name="search" />
      <input type="search" aria-label="User" placeholder=${exactUser ? "User (whole name)" : "User"} value=${user}
        onInput=${(event) => setUser(event.target.value)} /></label>
    <label class="search"><${Icon} name="search" />
      <input type="search" aria-label="Search" placeholder="Text, label or id" maxlength="256" value=${search}
        onInput=${(event) => setSearch(event.target.value)} /></label>
    <span class="filters-note">${note}</span>
  </div>`;
}

const Table = ({ of, past = false }) => html`
  <div class="table-frame"><table class="table" data-testid="sessions">
    <thead><tr>
      <th>Session</th><th>State</th><th>${past ? "Why it ended" : "Progress"}</th><th>Where</th><th>User</th>
      <th class="end">${past ? "Ended" : "Age"}</th>
    </tr></thead>
    <tbody>${of.map((session) => html`<${Row} key=${session.session_id} session=${session} past=${past} />`)}</tbody>
  </table></div>`;

function Row({ session, past }) {
  const href = to("sessions", [session.session_id]);
  const open = (event) => {
    if (event.target.closest("a, button") || getSelection().toString()) return;
    go("sessions", [session.session_id]);
  };
  const stage = basename(session.application_arguments?.usd_stage_uri);
  return html`<tr class="row" data-testid="session-row" data-session=${session.session_id} onClick=${open}>
    <td class="row-main"><a href=${href}><strong>${session.application}</strong> <span class="version">${session.application_version}</span></a>
      <span class="under">${stage ? `${stage} · ` : ""}<span title=${session.session_id}>${shortId(session.session_id)}</span></span></td>
    <td><${State} state=${session.unknown_values?.state ?? session.state} testid="session-state" />
      ${session.condition === "UNREACHABLE" && html`<${State} state="UNREACHABLE" />`}</td>
    <td class="row-what">${past ? html`<${End} session=${session} />` : html`<${Doing} session=${session} />`}</td>
    <td>${session.node ? html`${session.node}<span class="under">${session.device_name}</span>` : html`<span class="faint">not placed yet</span>`}</td>
    <td class="row-user">${session.username}</td>
    <td class="end"><${Ago} time=${past ? session.ended_time : session.created_time} /></td>
  </tr>`;
}

function Doing({ session }) {
  const { state, queue, viewers } = session;
  useNow({ running: state === "STARTING" });
  if (state === "PENDING") {
    const eta = seconds(queue?.estimated_wait_duration);
    return html`<span>${queue?.position ? `${ordinal(queue.position)} in the queue` : queue?.set_aside ? "Set aside" : "In the queue"}${eta !== null ? `, about ${span(Math.round(eta))}` : ""}</span>
      <span class="under">${queue?.wait_reasons?.[0]?.message ?? session.status_message}</span>`;
  }
  if (state === "STARTING") return html`<${Progress} session=${session} />`;
  if (state === "ACTIVE" || state === "READY") {
    return html`<span>${viewers == null ? "Viewers unknown" : viewers ? count(viewers, "viewer") : "No viewers"}</span>
      ${session.status_message && html`<span class="under" title=${session.status_message}>${session.status_message}</span>`}`;
  }
  return html`<span class=${overdue(session) ? "bad" : "faint"} title=${session.status_message}>${session.status_message}</span>`;
}

const End = ({ session }) => html`<span class=${session.state === "FAILED" ? "bad" : ""}>${words(session.end_reason)}</span>
  <span class="under" title=${session.status_message}>${session.status_message}</span>`;

const ordinal = (n) => `${n}${n % 10 === 1 && n % 100 !== 11 ? "st" : n % 10 === 2 && n % 100 !== 12 ? "nd" : n % 10 === 3 && n % 100 !== 13 ? "rd" : "th"}`;
