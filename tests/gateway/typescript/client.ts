// What a program in TypeScript does with types that openapi-typescript made of the document. It is compiled and not run:
// each line after an @ts-expect-error is a mistake that the compiler must find, and everything else must be right.

import createClient from "openapi-fetch";
import type { components, paths } from "./api";

type Create = components["schemas"]["CreateSessionRequest"];
type Session = components["schemas"]["Session"];
type Change = components["schemas"]["SessionInput"];
type State = components["schemas"]["Session.State"];

const client = createClient<paths>({ baseUrl: "https://footlights.example", headers: { Authorization: "Bearer x" } });

// Requests: the application alone is enough, null is the same as absent, and what is not known is a mistake.

export const least: Create = { application: "usd-viewer" };
export const more: Create = { application: "usd-viewer", labels: { team: "a" }, limits: { max_duration: "3600s" }, profile: null };
// @ts-expect-error The application is required.
export const nothing: Create = {};
// @ts-expect-error There is no such member.
export const misspelled: Create = { application: "usd-viewer", aplication_version: "1.0.0" };
// @ts-expect-error There is no such limit.
export const unknownLimit: Create = { application: "usd-viewer", limits: { duration: "3600s" } };
// @ts-expect-error Only answers have a state.
export const withState: Change = { labels: {}, state: "READY" };
// @ts-expect-error Members of answers cannot be changed.
export const changed = (session: Session): void => { session.node = "node-b"; };

export async function create(): Promise<Session> {
  const { data, error, response } = await client.POST("/v1/sessions", {
    body: { application: "usd-viewer" },
    params: { header: { "Idempotency-Key": "7d5f", "X-Request-Id": "a" } },
  });
  if (error !== undefined) {
    throw new Error(reason(error));
  }
  // 201 and 202 have the same session, and each member that the server always writes can be read without a question.
  const session: Session = data;
  const id: string = session.session_id;
  const position: number = session.queue?.position ?? 0;
  const steps: string[] = session.timeline.map((step) => `${step.stage} ${step.time ?? ""}`);
  console.log(id, position, steps, response.headers.get("Location"));
  return session;
}

export async function createWrongly(): Promise<void> {
  // @ts-expect-error The application is required.
  await client.POST("/v1/sessions", { body: { profile: "small" } });
  // @ts-expect-error The body is required.
  await client.POST("/v1/sessions", {});
  // @ts-expect-error There is no such path.
  await client.POST("/v1/session", { body: { application: "usd-viewer" } });
  // @ts-expect-error Enums of requests are closed.
  await client.GET("/v1/sessions", { params: { query: { state: ["REDY"] } } });
}

export async function list(): Promise<number> {
  const states: State[] = ["PENDING", "READY"];
  let found = 0;
  let page_token: string | undefined;
  do {
    const query = { limit: 100, state: states, ...(page_token === undefined ? {} : { page_token }) };
    const { data } = await client.GET("/v1/sessions", { params: { query } });
    found += data?.items.length ?? 0;
    page_token = data?.next_page_token;
  } while (page_token);
  return found;
}

export async function get(session_id: string): Promise<string> {
  const { data } = await client.GET("/v1/sessions/{session_id}", { params: { path: { session_id } } });
  // Enums of answers are open: a state that a later release adds is a string like any other.
  switch (data?.state) {
    case "READY":
    case "ACTIVE":
      return "connect";
    default:
      return data?.state ?? "gone";
  }
}

export async function change(session_id: string, etag: string): Promise<string> {
  const body: Change = { labels: { team: "b" }, limits: { idle_timeout: null } };
  const { data, error } = await client.PATCH("/v1/sessions/{session_id}", {
    params: { path: { session_id }, query: { update_mask: "labels,limits.idle_timeout" }, header: { "If-Match": `"${etag}"` } },
    body,
  });
  return data?.etag ?? reason(error);
}

export async function watch(session_id: string, cursor: string): Promise<ReadableStream<Uint8Array> | null | undefined> {
  const { data } = await client.GET("/v1/sessions/{session_id}:watch", {
    params: { path: { session_id }, header: { "Last-Event-ID": cursor } },
    headers: { Accept: "application/x-ndjson" },
    parseAs: "stream",
  });
  return data;
}

export function line(text: string): Session | null {
  type Line = paths["/v1/sessions:watch"]["get"]["responses"]["200"]["content"]["application/x-ndjson"];
  const frame: Line = JSON.parse(text);
  if (frame.error) {
    throw new Error(reason(frame.error));
  }
  return frame.result?.session ?? null;
}

export async function terminate(session_id: string): Promise<Session | undefined> {
  const { data } = await client.DELETE("/v1/sessions/{session_id}", {
    params: { path: { session_id }, header: { "Idempotency-Key": "7d60" } },
  });
  return data;
}

export async function connect(session_id: string, offer: string): Promise<string | undefined> {
  const { data: grant } = await client.POST("/v1/sessions/{session_id}:connect", { params: { path: { session_id } }, body: {} });
  const { data: answer } = await client.POST("/v1/sessions/{session_id}/whep", {
    params: { path: { session_id } },
    headers: { Authorization: `Bearer ${grant?.token ?? ""}`, "Content-Type": "application/sdp" },
    body: offer,
    bodySerializer: (body) => body,
    parseAs: "text",
  });
  return answer;
}

function reason(error: components["schemas"]["Status"] | undefined): string {
  for (const detail of error?.details ?? []) {
    if (detail["@type"] === "type.googleapis.com/google.rpc.ErrorInfo" && "reason" in detail) {
      return `${detail.reason}: ${error?.message ?? ""}`;
    }
  }
  return error?.message ?? "";
}
