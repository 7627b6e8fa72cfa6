// Starting a session: the form on the left, the expected placement on the right.
import { call, identity, may, newId, pages } from "../../api/api.js";
import { useCell } from "../../ui/cell.js";
import { count, span, seconds } from "../../ui/format.js";
import { html, useEffect, useRef, useState } from "../../ui/html.js";
import { Icon } from "../../ui/icons.js";
import { Loaded, useRead } from "../../ui/load.js";
import { Busy, Empty, Skeleton } from "../../ui/parts.js";
import { go, route, to } from "../../router.js";
import { put } from "../../api/watch.js";
import { ArgumentField, argumentsOf, Field } from "../../ui/fields.js";
import { StageField } from "./stagefield.js";
import { Verdicts } from "./verdicts.js";

const LAST = "footlights.application";
const DURATIONS = [["", "default of the version"], ["900s", "15 min"], ["3600s", "1 h"], ["14400s", "4 h"], ["86400s", "1 d"]];

export function Start() {
  const { parts, query } = useCell(route);
  const applications = useRead((signal) => pages("/applications", {}, signal), []);
  return html`<a class="back" href=${to("sessions")}><${Icon} name="left" size=${14} /> Sessions</a>
    <header class="head"><h1>Start a session</h1></header>
    <${Loaded} of=${applications} rows=${5}>${({ items }) => (items.length
      ? html`<${Form} applications=${items} first=${items.find(({ application }) => application === (parts[0] ?? localStorage.getItem(LAST))) ?? items[0]} query=${query} />`
      : html`<${Empty} title="Nothing to start yet">An operator registers applications:
          <code>footlights apps apply -f FILE.yaml</code></${Empty}>`)}</${Loaded}>`;
}

function Form({ applications, first, query }) {
  const [application, setApplication] = useState(first.application);
  const chosen = applications.find((one) => one.application === application);
  const details = useRead(async (signal) => {
    const [versions, profiles] = await Promise.all([
      pages(`/applications/${encodeURIComponent(application)}/versions`, {}, signal),
      may("profiles.read") ? pages("/profiles", { application }, signal) : { items: [] },
    ]);
    return { application, versions: versions.items, profiles: profiles.items };
  }, [application]);
  const known = details.value?.application === application ? details.value : null;
  return html`<div class="start">
      <${Field} name="Application" hint=${chosen.description}>
        <select class="input" data-testid="start-application" value=${application} onChange=${(event) => setApplication(event.target.value)}>
          ${applications.map((one) => html`<option key=${one.application} value=${one.application}>${one.display_name || one.application}</option>`)}
        </select></${Field}>
      ${known ? html`<${Recipe} key=${application} application=${chosen} known=${known} query=${query} />`
        : html`<${Loaded} of=${{ ...details, value: null }} rows=${4}>${() => null}</${Loaded}>`}
    </div>`;
}

function Recipe({ application, known, query }) {
  const { versions, profiles } = known;
  const releases = application.releases ?? {};
  const [version, setVersion] = useState(query.version || (releases.default || !versions.length ? "default" : versions[0].version));
  const [stage, setStage] = useState(query.stage ?? "");
  const [given, setGiven] = useState({});
  const [extra, setExtra] = useState({ profile: "", max_duration: "", idle_timeout: "", priority: "", username: "" });
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const form = useRef(null);
  useEffect(() => form.current.querySelector("[aria-invalid]")?.focus(), [error]);
  // Kept for as long as the form says the same, so that a second click, or a retry after a lost answer, starts one session.
  const [requestId, setRequestId] = useState(() => newId());
  useEffect(() => setRequestId(newId()), [version, stage, given, extra]);

  const recipe = versions.find((one) => one.version === (releases[version] ?? version)) ?? null;
  const problems = problemsOf(error);
  const change = (name) => (event) => setExtra({ ...extra, [name]: event.target.value });

  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      const body = {
        application: application.application,
        application_version: version,
        application_arguments: { usd_stage_uri: stage.trim(), nucleus_connection_config: [], ...argumentsOf(recipe, given) },
        request_id: requestId,
      };
      const { priority, max_duration, idle_timeout, ...rest } = extra;
      for (const [name, value] of Object.entries(rest)) if (value) body[name] = value;
      if (priority) body.priority = Number(priority);
      for (const [name, value] of Object.entries({ max_duration, idle_timeout })) if (value) (body.limits ??= {})[name] = value;
      const session = await call("POST", "/sessions", { body });
      put(session);
      localStorage.setItem(LAST, application.application);
      go("sessions", [session.session_id]);
    } catch (failure) {
      setError(failure);
      // A key that was answered with an error is not used again.
      setRequestId(newId());
      setBusy(false);
    }
  };
  const shown = new Set(["application_version", "usd_stage_uri", ...Object.keys(extra), ...(recipe?.arguments ?? []).map(({ name }) => name)]);
  const elsewhere = Object.entries(problems).filter(([field]) => !shown.has(field));
  return html`<form ref=${form} onSubmit=${submit} novalidate>
      <${Field} name="Version" problem=${problems.application_version} hint=${recipe?.description}>
        <select class="input" data-testid="start-version" value=${version} onChange=${(event) => setVersion(event.target.value)}>
          ${Object.keys(releases).length > 0 && html`<optgroup label="Releases">${Object.entries(releases).map(([name, target]) => html`
            <option key=${name} value=${name}>${name} → ${target}</option>`)}</optgroup>`}
          <optgroup label="Versions">${versions.map((one) => html`<option key=${one.version} value=${one.version}>${one.version}</option>`)}</optgroup>
        </select></${Field}>
      <${StageField} application=${application.application} recipe=${recipe} value=${stage} onChange=${setStage} problem=${problems.usd_stage_uri} />
      <div class="field-row">${(recipe?.arguments ?? []).map((argument) => html`<${ArgumentField} key=${argument.name} of=${argument} value=${given[argument.name]}
        onChange=${(value) => setGiven({ ...given, [argument.name]: value })} problem=${problems[argument.name]} />`)}</div>
      <details class="more-fields" open=${["profile", "max_duration", "idle_timeout", "priority", "username"].some((name) => problems[name])}>
        <summary>Limits and more</summary>
        <div class="field-row">
          ${profiles.length > 0 && html`<${Field} name="Profile" problem=${problems.profile}>
            <select class="input" value=${extra.profile} onChange=${change("profile")} data-testid="start-profile"><option value="">none</option>
              ${profiles.map((one) => html`<option key=${one.profile} value=${one.profile}>${one.display_name || one.profile}</option>`)}</select></${Field}>`}
          <${Field} name="Max duration" problem=${problems.max_duration}>
            <select class="input" value=${extra.max_duration} onChange=${change("max_duration")}>${DURATIONS.map(([value, name]) => html`<option key=${value} value=${value}>${name}</option>`)}</select></${Field}>
          <${Field} name="Idle timeout" problem=${problems.idle_timeout}>
            <select class="input" value=${extra.idle_timeout} onChange=${change("idle_timeout")}>${DURATIONS.map(([value, name]) => html`<option key=${value} value=${value}>${name}</option>`)}</select></${Field}>
          ${may("sessions.priority") && html`<${Field} name="Priority" problem=${problems.priority}>
            <input class="input" type="number" min="-100" max="100" placeholder="0" value=${extra.priority} onInput=${change("priority")} /></${Field}>`}
          ${may("sessions.create_for_others") && html`<${Field} name="User" problem=${problems.username}>
            <input class="input" placeholder=${identity.value.caller?.subject} value=${extra.username} onInput=${change("username")} /></${Field}>`}
        </div>
      </details>
      ${error && (elsewhere.length > 0 || !error.violations?.length) && html`<div class="note note-bad" role="alert" data-testid="start-error"><${Icon} name="warning" />
        <div><strong>${error.message}</strong> ${error.reason && html`<code>${error.reason}</code>`}
          ${elsewhere.length > 0 && html`<ul>${elsewhere.map(([field, text]) => html`<li key=${field}><code>${field}</code> ${text.text}</li>`)}</ul>`}</div></div>`}
      <div class="form-end">
        <button class="button primary" data-testid="start-submit" disabled=${busy}>${busy ? html`<${Busy} />` : html`<${Icon} name="play" />`} Start</button>
        <a class="button quiet" href=${to("sessions")}>Cancel</a>
      </div>
    </form>
    <${Forecast} application=${application.application} version=${version} profile=${extra.profile} priority=${extra.priority} />`;
}

/** Violations by the name of the form's field: `application_arguments.speed` is `speed` here, `limits.max_duration` `max_duration`. */
function problemsOf(error) {
  const problems = {};
  for (const { field, description, reason } of error?.violations ?? []) {
    const name = field.replace(/^(application_arguments|limits)\.?/, "") || field;
    const text = problems[name] ? `${problems[name].text} ${description}` : description;
    problems[name] = { text, reason: reason || error.reason };
  }
  return problems;
}

/** Where it would be placed now; requested again as the form changes and every few seconds. */
function Forecast({ application, version, profile, priority }) {
  const [asked, setAsked] = useState({ application, version, profile, priority });
  useEffect(() => {
    const timer = setTimeout(() => setAsked({ application, version, profile, priority }), 250);
    return () => clearTimeout(timer);
  }, [application, version, profile, priority]);
  const { value, error } = useRead((signal) => call("POST", "/sessions:explain", {
    signal,
    body: { application: asked.application, application_version: asked.version, profile: asked.profile || undefined, priority: Number(asked.priority) || undefined },
  }), [asked], { every: 5000 });
  const wait = seconds(value?.estimated_wait_duration);
  const position = value?.queue_position;
  const place = position > 0 && html`, <strong>${position === 1 ? "next" : `number ${position}`}</strong> in the queue`;
  return html`<aside class="card forecast" aria-live="polite" data-testid="forecast">
    <h2>Expected placement</h2>
    ${!value && !error && html`<${Skeleton} rows=${2} />`}
    ${error && html`<p class="hint">No forecast: ${error.message}</p>`}
    ${value && (value.fits
      ? html`<p class="forecast-line good"><${Icon} name="check" /> <span>It can start now on <strong>${value.node}</strong>.</span></p>`
      : html`<p class="forecast-line wait"><${Icon} name="clock" /> <span>It will wait${place}${wait !== null && html`, about <strong>${span(Math.round(wait))}</strong>`}.</span></p>`)}
    ${value && (value.nodes?.length
      ? html`<p class="hint">${count(value.node_count ?? value.nodes.length, "node")} checked${value.node_count > value.nodes.length && ` (${value.nodes.length} shown): ${value.wait_reasons?.map((each) => each.message).join("; ")}`}</p><${Verdicts} of=${value.nodes} />`
      : html`<p class="hint">There are no nodes yet: start an agent.</p>`)}
  </aside>`;
}
