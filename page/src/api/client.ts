// Requests to the service: every answer is a message, or an error that carries one sentence for people.
import { API } from "../base";
import { ApiError, Away } from "./errors";
import type { Problem } from "./types";

export { ApiError, Away };

export type Query = Record<string, string | number | undefined | null | readonly (string | number)[]>;

export function address(path: string, query: Query = {}): string {
  const parts = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    const many = Array.isArray(value) ? value : [value];
    for (const each of many) if (each !== undefined && each !== null && each !== "") parts.append(name, String(each));
  }
  const text = parts.toString();
  return `${API}${path}${text && `?${text}`}`;
}

export async function get<Answer>(path: string, query?: Query, signal?: AbortSignal): Promise<Answer> {
  return request<Answer>("GET", address(path, query), { signal });
}

interface Sent {
  body?: unknown;
  headers?: Record<string, string>;
}

export async function send<Answer>(method: "POST" | "PUT" | "PATCH" | "DELETE", path: string, sent: Sent = {}) {
  const headers = { ...sent.headers, ...(sent.body === undefined ? {} : { "Content-Type": "application/json" }) };
  const body = sent.body === undefined ? undefined : JSON.stringify(sent.body);
  return request<Answer>(method, address(path), { headers, body });
}

async function request<Answer>(method: string, url: string, init: RequestInit): Promise<Answer> {
  let answer: Response;
  try {
    answer = await fetch(url, { method, credentials: "same-origin", ...init });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new Away("the service does not answer");
  }
  const isJson = answer.headers.get("content-type")?.includes("json") ?? false;
  // An answer without content may still name its kind.
  if (answer.ok) return (isJson && answer.status !== 204 ? await answer.json() : undefined) as Answer;
  if (isJson) throw new ApiError((await answer.json()) as Problem);
  if (answer.status >= 500) throw new Away(`something before the service answered ${answer.status}`);
  const detail = `the service answered ${answer.status} ${answer.statusText}`;
  throw new ApiError({
    title: answer.statusText, status: answer.status, detail, code: "request_failed", errors: [], request_id: "",
  });
}

/** For Idempotency-Key: also where the page is served without TLS and `crypto.randomUUID` is missing. */
export function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
