// The one place that knows which framework draws the page.
import { cloneElement, h, render } from "../vendor/preact.mjs";
import htm from "../vendor/htm.mjs";

export { cloneElement, render };
export {
  useCallback, useEffect, useId, useLayoutEffect, useMemo, useReducer, useRef, useState,
} from "../vendor/hooks.mjs";

export const html = htm.bind(h);
