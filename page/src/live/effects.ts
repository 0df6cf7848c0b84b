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
      return { stale: [["latest", id], ["series", id], ["spark", id], ["job", id], ["samples", id], ["jobs"]], gone: [] };
    case "workers":
      return { stale: [["pools", id], ["events", id]], gone: [] };
    case "logs":
      return { stale: [["logs", id], ["components", id]], gone: [] };
    case "jobs":
      return {
        stale: [["jobs"], ["job", id], ["attempts", id], ["checkpoints", id], ["events", id], ["pools", id]],
        // A resumed job does the steps after its checkpoint again.
        gone: event.kind === "JobStarted" ? [["series", id], ["spark", id]] : [],
      };
    default:
      return { stale: [], gone: [] };
  }
}
