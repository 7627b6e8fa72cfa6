// A viewer's mouse, touch, wheel and keys, as messages for the application. Knows nothing of the console.
//
//   const input = new Input({ surface, video, keyboard, send });
//   input.addEventListener("control", ({ detail }) => …);   // whether keys go to the application
//   input.end();
//
// `surface` is the element around the picture, `keyboard` a transparent textarea in it: only an editable element gets
// compositions (Chinese, Japanese, dead keys) and the on-screen keyboard of a tablet.

const MODIFIERS = [["shiftKey", "Shift"], ["ctrlKey", "Control"], ["altKey", "Alt"], ["metaKey", "Meta"]];
const LONGEST_TEXT = 500;

export class Input extends EventTarget {
  #surface;
  #video;
  #keyboard;
  #send;
  #ending = new AbortController();
  #move = null;
  #frame = 0;
  #held = new Map();
  #pointer = null;
  #controls = false;

  constructor({ surface, video, keyboard, send }) {
    super();
    this.#surface = surface;
    this.#video = video;
    this.#keyboard = keyboard;
    this.#send = send;
    const on = (target, type, handler, options = {}) =>
      target.addEventListener(type, handler, { ...options, signal: this.#ending.signal });
    on(surface, "pointerdown", (event) => this.#down(event));
    on(surface, "pointermove", (event) => this.#moved(event));
    on(surface, "pointerup", (event) => this.#up(event, "up"));
    on(surface, "pointercancel", (event) => this.#up(event, "cancel"));
    on(surface, "lostpointercapture", (event) => this.#pointer === event.pointerId && this.#up(event, "cancel"));
    on(surface, "wheel", (event) => this.#wheel(event), { passive: false });
    on(surface, "contextmenu", (event) => event.preventDefault());
    on(keyboard, "keydown", (event) => this.#keyDown(event));
    on(keyboard, "keyup", (event) => this.#keyUp(event));
    on(keyboard, "input", (event) => this.#typed(event));
    on(keyboard, "compositionend", (event) => this.#text(event.data));
    on(keyboard, "focus", () => this.#control(true));
    on(keyboard, "blur", () => this.#control(false));
    on(window, "blur", () => this.#releaseKeys());
  }

  /** Give the keys back to the page. */
  release() {
    this.#keyboard.blur();
  }

  end() {
    this.release();
    cancelAnimationFrame(this.#frame);
    this.#ending.abort();
  }

  #control(controls) {
    if (!controls) this.#releaseKeys();
    this.#controls = controls;
    this.dispatchEvent(new CustomEvent("control", { detail: controls }));
  }

  #down(event) {
    // The default would take the focus from the textarea that gets it here.
    event.preventDefault();
    this.#keyboard.focus({ preventScroll: true });
    this.#pointer = event.pointerId;
    this.#surface.setPointerCapture(event.pointerId);
    this.#flush();
    this.#point("down", event);
  }

  #moved(event) {
    // A second finger is not a second mouse.
    if (this.#pointer !== null && event.pointerId !== this.#pointer) return;
    if (this.#pointer === null && !this.#controls) return;
    this.#move = event;
    if (!this.#frame) this.#frame = requestAnimationFrame(() => this.#flush());
  }

  #up(event, action) {
    if (event.pointerId !== this.#pointer) return;
    this.#flush();
    this.#point(action, event);
    // With two buttons down, the pointer is up only with the last one: pointerup comes once.
    this.#pointer = null;
  }

  #flush() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    if (this.#move) this.#point("move", this.#move);
    this.#move = null;
  }

  #point(action, event) {
    this.#send({ type: "pointer", action, ...this.#place(event), button: event.button, buttons: event.buttons, modifiers: modifiers(event) });
  }

  #wheel(event) {
    // While the picture is not controlled, scrolling over it scrolls the page.
    if (!this.#controls) return;
    event.preventDefault();
    const unit = [1, 16, this.#surface.clientHeight][event.deltaMode] ?? 1;
    this.#send({ type: "wheel", dx: event.deltaX * unit, dy: event.deltaY * unit, ...this.#place(event), modifiers: modifiers(event) });
  }

  /** Where in the picture, from 0 to 1; the bars that `object-fit: contain` leaves beside it are its edge. */
  #place(event) {
    const box = contentBox(this.#video);
    return { x: part(event.clientX - box.left, box.width), y: part(event.clientY - box.top, box.height) };
  }

  #keyDown(event) {
    if (event.isComposing || event.keyCode === 229) return;
    // Tab must always lead on, and Escape always out; Shift and Escape is the application's Escape.
    if (event.key === "Tab") return;
    if (event.key === "Escape" && !event.shiftKey) return void this.release();
    const pastes = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "v";
    if (!pastes) event.preventDefault();
    this.#held.set(event.code, event.key);
    this.#send({ type: "key", action: "down", key: event.key, code: event.code, modifiers: modifiers(event), repeat: event.repeat });
  }

  #keyUp(event) {
    if (!this.#held.delete(event.code)) return;
    event.preventDefault();
    this.#send({ type: "key", action: "up", key: event.key, code: event.code, modifiers: modifiers(event) });
  }

  #typed(event) {
    if (event.isComposing) return;
    // Keys that were sent as keys type nothing here, so this is an on-screen keyboard, or something pasted.
    if (event.inputType === "insertCompositionText" || event.inputType === "insertFromComposition") return;
    this.#text(this.#keyboard.value);
  }

  #text(text) {
    this.#keyboard.value = "";
    // An application may take small messages only; a long paste is several.
    for (let at = 0; at < (text?.length ?? 0); at += LONGEST_TEXT) {
      this.#send({ type: "text", text: text.slice(at, at + LONGEST_TEXT) });
    }
  }

  #releaseKeys() {
    for (const [code, key] of this.#held) this.#send({ type: "key", action: "up", key, code, modifiers: [] });
    this.#held.clear();
  }
}

/** The rectangle of the picture itself inside its element, in the viewport's pixels. */
export function contentBox(video) {
  const box = video.getBoundingClientRect();
  const { videoWidth, videoHeight } = video;
  if (!videoWidth || !videoHeight || !box.width || !box.height) return box;
  const scale = Math.min(box.width / videoWidth, box.height / videoHeight);
  const width = videoWidth * scale;
  const height = videoHeight * scale;
  return { left: box.left + (box.width - width) / 2, top: box.top + (box.height - height) / 2, width, height };
}

const part = (offset, length) => Math.round(Math.min(1, Math.max(0, offset / (length || 1))) * 1e5) / 1e5;

const modifiers = (event) => MODIFIERS.filter(([held]) => event[held]).map(([, name]) => name);
