// Form fields, also for the typed arguments that a version declares.
import { html, useId, cloneElement } from "./html.js";

/** A labelled control with its hint, and what is wrong with it next to it. */
export function Field({ name, hint, problem, required = false, children }) {
  const id = useId();
  const controls = (Array.isArray(children) ? children : [children]).filter(Boolean);
  const [control, ...rest] = controls;
  const notes = [problem && `${id}-problem`, hint && `${id}-hint`].filter(Boolean).join(" ");
  return html`<div class=${`field ${problem ? "field-bad" : ""}`}>
    <label class="field-name" for=${id}>${name}${required && html` <span class="faint">required</span>`}</label>
    ${cloneElement(control, { id, "aria-describedby": notes || null, "aria-invalid": problem ? "true" : null })}
    ${rest}
    ${problem && html`<p class="field-error" id=${`${id}-problem`} role="alert">${problem.text ?? problem}${problem.reason && html` <code>${problem.reason}</code>`}</p>`}
    ${hint && html`<p class="field-hint" id=${`${id}-hint`}>${hint}</p>`}
  </div>`;
}

export function ArgumentField({ of, value, onChange, problem }) {
  const standard = of.default_value;
  const hint = [of.description, range(of)].filter(Boolean).join(" ");
  const common = { name: of.name, problem, hint, required: of.required };
  const type = (event) => onChange(event.target.value);
  if (of.type === "BOOLEAN") {
    const shown = value ?? (standard == null ? "" : String(standard));
    return html`<${Field} ...${common}><select class="input" data-testid=${`argument-${of.name}`} value=${shown} onChange=${type}>
      ${(standard == null) && html`<option value=""></option>`}<option value="true">true</option><option value="false">false</option></select></${Field}>`;
  }
  if (of.allowed_values?.length) {
    return html`<${Field} ...${common}><select class="input" data-testid=${`argument-${of.name}`} value=${value ?? standard ?? ""} onChange=${type}>
      ${(standard == null) && html`<option value=""></option>`}
      ${of.allowed_values.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}</select></${Field}>`;
  }
  const number = of.type === "INTEGER" || of.type === "NUMBER";
  return html`<${Field} ...${common}><input class="input" data-testid=${`argument-${of.name}`}
    type=${of.secret ? "password" : number ? "number" : "text"} autocomplete=${of.secret ? "new-password" : "off"}
    min=${of.minimum} max=${of.maximum} step=${of.type === "INTEGER" ? 1 : number ? "any" : null} maxlength=${of.max_length || null}
    placeholder=${standard == null ? "" : String(standard)} value=${value ?? ""} onInput=${type} /></${Field}>`;
}

function range({ minimum, maximum }) {
  if (minimum != null && maximum != null) return `From ${minimum} to ${maximum}.`;
  if (minimum != null) return `At least ${minimum}.`;
  return maximum == null ? "" : `At most ${maximum}.`;
}

/** What was typed, in the types that the version declares; what was left empty is left out and takes its default. */
export function argumentsOf(recipe, given) {
  const result = {};
  for (const { name, type } of recipe?.arguments ?? []) {
    const text = given[name];
    if (text === undefined || text === "") continue;
    if (type === "BOOLEAN") result[name] = text === "true";
    else if ((type === "INTEGER" || type === "NUMBER") && !Number.isNaN(Number(text))) result[name] = Number(text);
    else result[name] = text;
  }
  return result;
}
