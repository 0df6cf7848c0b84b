// What a message of the stream makes out of date: pure, so that tests can say it. Keys are those of api/queries.ts.
import type { Event } from "../api/types";

export type Key = readonly string[];

export interface Effects {
  /** To be fetched again, soon. */
  stale: Key[];
  /** To be forgotten: what was fetched is no longer the beginning of what there is. */
  gone: Key[];
}

export function effects(topic: string, event: Pick<Event, "job_id" | "kind">): Effects {
  const id = event.job_id;
  switch (topic) {
    case "view":
      return { stale: [["job", id], ["pools", id]], gone: [] };
    case "metrics":
      // The figures themselves are in the event: see deltas.ts. Files of completions come beside the steps.
      return { stale: [["samples", id], ["spark", id]], gone: [] };
    case "workers":
      return { stale: [["pools", id], ["events", id]], gone: [] };
    case "logs":
      return { stale: [["logs", id], ["components", id]], gone: [] };
    case "jobs":
      return {
        stale: [["jobs"], ["job", id], ["attempts", id], ["checkpoints", id], ["events", id], ["pools", id]],
        // A resumed job does the steps after its checkpoint again.
        gone: event.kind === "JobStarted" ? [["series", id], ["latest", id]] : [],
      };
    default:
      return { stale: [], gone: [] };
  }
}
