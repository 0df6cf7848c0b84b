import { describe, expect, it } from "vitest";
import { delay_ms, type Source, Stream, type Status } from "./stream";

class Recorded implements Source {
  readyState = 0;
  onopen: (() => void) | null = null;
  onerror: (() => void) | null = null;
  listeners = new Map<string, (event: { data: string; lastEventId: string }) => void>();
  constructor(readonly url: string) {}
  addEventListener(type: string, listener: (event: { data: string; lastEventId: string }) => void) {
    this.listeners.set(type, listener);
  }
  close() {
    this.readyState = 2;
  }
}

function started() {
  const sources: Recorded[] = [];
  const messages: unknown[] = [];
  const statuses: Status[] = [];
  const waits: (() => void)[] = [];
  const stream = new Stream({
    url: (after) => `stream?after=${after ?? ""}`,
    open: (url) => {
      const source = new Recorded(url);
      sources.push(source);
      return source;
    },
    onMessage: (topic, data) => messages.push([topic, data]),
    onStatus: (status) => statuses.push(status),
    later: (action) => {
      waits.push(action);
      return () => {};
    },
  });
  stream.start();
  return { stream, sources, messages, statuses, waits };
}

describe("the stream", () => {
  it("goes on after the last event it has seen when the service comes back", () => {
    const { sources, waits, messages } = started();
    sources[0]!.listeners.get("metrics")!({ data: '{"step": 3}', lastEventId: "17" });
    sources[0]!.readyState = 2;
    sources[0]!.onerror!();
    waits[0]!();
    expect(sources[1]!.url).toBe("stream?after=17");
    expect(messages).toEqual([["metrics", { step: 3 }]]);
  });
  it("is not moved by messages without an id", () => {
    const { sources, waits } = started();
    sources[0]!.listeners.get("view")!({ data: '{"job_id": "job_1"}', lastEventId: "" });
    sources[0]!.readyState = 2;
    sources[0]!.onerror!();
    waits[0]!();
    expect(sources[1]!.url).toBe("stream?after=");
  });
  it("leaves a broken connection to the browser, which tries again by itself", () => {
    const { sources, waits, statuses } = started();
    sources[0]!.onerror!();
    expect([sources.length, waits.length]).toEqual([1, 0]);
    sources[0]!.onopen!();
    expect(statuses).toEqual(["away", "live"]);
  });
  it("is silent once it was stopped", () => {
    const { stream, sources, statuses, waits } = started();
    stream.stop();
    sources[0]!.onerror!();
    expect([statuses, waits.length]).toEqual([[], 0]);
  });
});

it("waits between attempts grow to ten seconds", () => {
  expect([0, 1, 2, 20].map(delay_ms)).toEqual([500, 1000, 2000, 10_000]);
});
