// Our own line icons on a 20-unit grid.
import { html } from "./html.js";

const PATHS = {
  sessions: "M3 5.5h14v8H3zM7 16.5h6",
  applications: "M3.5 3.5h5v5h-5zM11.5 3.5h5v5h-5zM3.5 11.5h5v5h-5zM11.5 11.5h5v5h-5z",
  nodes: "M3.5 4h13v4.5h-13zM3.5 11.5h13V16h-13zM6.5 6.25h.01M6.5 13.75h.01",
  tokens: "M7 13.5a3.5 3.5 0 1 1 3.2-4.9H17v3h-2v2h-2.5v-2h-2.3A3.5 3.5 0 0 1 7 13.5zM6.8 10h.01",
  plus: "M10 4v12M4 10h12",
  stop: "M5.5 5.5h9v9h-9z",
  clock: "M10 3.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13zM10 6.5V10l2.5 1.5",
  copy: "M7.5 7.5h9v9h-9zM12.5 7.5v-4h-9v9h4",
  check: "M4 10.5l4 4 8-9",
  cross: "M5 5l10 10M15 5L5 15",
  warning: "M10 3.5l7.5 13h-15zM10 8v4M10 14.2h.01",
  info: "M10 3a7 7 0 1 0 0 14 7 7 0 0 0 0-14zM10 9v5M10 6.3h.01",
  expand: "M3.5 7.5v-4h4M16.5 7.5v-4h-4M3.5 12.5v4h4M16.5 12.5v4h-4",
  gauge: "M3.5 14.5a7 7 0 1 1 13 0M10 12.5l3-4",
  again: "M15.8 8A6.2 6.2 0 1 0 16 11.5M16.5 4v4h-4",
  sun: "M10 6.5a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7zM10 2v1.5M10 16.5V18M2 10h1.5M16.5 10H18M4.3 4.3l1.1 1.1M14.6 14.6l1.1 1.1M4.3 15.7l1.1-1.1M14.6 5.4l1.1-1.1",
  moon: "M16.5 11.8A7 7 0 0 1 8.2 3.5a7 7 0 1 0 8.3 8.3z",
  system: "M3 4h14v9H3zM7.5 16.5h5",
  out: "M8.5 3.5h-5v13h5M8 10h9M13.5 6.5L17 10l-3.5 3.5",
  right: "M8 5l5 5-5 5",
  left: "M12 5l-5 5 5 5",
  search: "M9 3.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11zM13 13l4 4",
  code: "M7 6l-4 4 4 4M13 6l4 4-4 4",
  keyboard: "M2.5 5.5h15v9h-15zM5.5 8.5h.01M8.5 8.5h.01M11.5 8.5h.01M14.5 8.5h.01M7 11.7h6",
  play: "M6.5 4.5v11l9-5.5z",
  down: "M5 8l5 5 5-5",
};

export const Icon = ({ name, size = 16 }) => html`
  <svg class="icon" width=${size} height=${size} viewBox="0 0 20 20" fill="none" stroke="currentColor" stroke-width="1.6"
    stroke-linecap="round" stroke-linejoin="round" aria-hidden="true"><path d=${PATHS[name]} /></svg>`;

/** The sign: three lights and the edge of a stage. */
export const Mark = ({ size = 26 }) => html`
  <svg class="mark" width=${size} height=${size} viewBox="0 0 32 32" fill="none" stroke-linecap="round" aria-hidden="true">
    <path class="mark-beam" d="M10.5 17.5L7.5 7.5M16 16.5V6M21.5 17.5l3-10" stroke-width="2.6" />
    <path class="mark-edge" d="M5.5 24c3-2.5 6.5-3.7 10.5-3.7S23.5 21.5 26.5 24" stroke-width="2.8" />
  </svg>`;

/** An empty stage, for views that have nothing to show yet. */
export const EmptyStage = () => html`
  <svg class="empty-stage" width="180" height="108" viewBox="0 0 180 108" fill="none" aria-hidden="true">
    <path class="empty-beam" d="M44 86L70 14h14L60 86zM82 86L86 14h8l4 72zM120 86L96 14h14l26 72z" />
    <path class="empty-edge" d="M10 90c24-9 50-13 80-13s56 4 80 13" />
    <path class="empty-lamps" d="M48 88a5 5 0 0 1 9-3M86 83.5a5 5 0 0 1 9 0M124 85a5 5 0 0 1 9 3" />
  </svg>`;
