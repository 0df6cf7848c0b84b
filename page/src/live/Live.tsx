// The tab's one stream: what it tells of steps is drawn at once; what it only hints at is asked for, at a pace.
import { type QueryClient, useQueryClient } from "@tanstack/react-query";
import { createContext, type ReactNode, useContext, useEffect, useRef, useState } from "react";
import { useMatch } from "react-router";
import { address } from "../api/client";
import type { Event, JobDetail, Latest, SeriesSet } from "../api/types";
import { isNext, jobsWith, jobWith, latestWith, metricsOf, type Pages, seriesWith, type Told } from "./deltas";
import { effects, type Key } from "./effects";
import { Pace } from "./pace";
import { isTooLong } from "./series";
import { type Source, type Status, Stream } from "./stream";

const LiveStatus = createContext<Status>("connecting");
export const useLive = () => useContext(LiveStatus);

const CLOCK = {
  now_ms: () => performance.now(),
  chance: Math.random,
  later: (action: () => void, delay_ms: number) => {
    const timer = setTimeout(action, delay_ms);
    return () => clearTimeout(timer);
  },
};
const ALL = ["all"];

export function Live({ children }: { children: ReactNode }) {
  const client = useQueryClient();
  const [status, setStatus] = useState<Status>("connecting");
  const jobId = useMatch("/jobs/:id/*")?.params.id;
  const isOfJob = jobId !== undefined && jobId.startsWith("job_");
  const wasAway = useRef(false);

  useEffect(() => {
    const pace = new Pace(CLOCK, (queryKey) => void client.invalidateQueries(queryKey === ALL ? {} : { queryKey }));
    const look = () => pace.seen(document.visibilityState === "visible");
    document.addEventListener("visibilitychange", look);
    look();
    const stream = new Stream({
      url: (after) => {
        const topics = isOfJob ? "jobs,workers,metrics,logs" : "jobs,metrics";
        return address("/events/stream", { topics, job_id: isOfJob ? jobId : null, after });
      },
      open: (url) => new EventSource(url) as unknown as Source,
      onMessage: (topic, data) => {
        if (topic === "resync") return void client.resetQueries({ predicate: (query) => query.queryKey[0] !== "me" });
        const event = { ...(data as Event), topic };
        if (metricsOf(event)) for (const queryKey of take(client, event)) pace.want(queryKey);
        const { stale, gone } = effects(topic, event);
        for (const queryKey of gone) void client.resetQueries({ queryKey });
        for (const queryKey of stale) pace.want(queryKey);
      },
      onStatus: (next) => {
        setStatus(next);
        // What happened between the last look, or the first one, and the stream's beginning is in neither.
        if (next === "live") pace.want(wasAway.current ? ALL : isOfJob ? ["job", jobId] : ["jobs"]);
        wasAway.current = next === "away";
      },
      later: (action, delay_ms) => CLOCK.later(action, delay_ms * (1 + Math.random())),
    });
    stream.start();
    return () => {
      document.removeEventListener("visibilitychange", look);
      stream.stop();
      pace.stop();
    };
  }, [client, isOfJob, jobId]);

  return <LiveStatus value={status}>{children}</LiveStatus>;
}

/** The figures of an event, into whatever shows them. Returns what is asked for instead: where steps in between are missing. */
function take(client: QueryClient, event: Told): Key[] {
  const id = event.job_id;
  client.setQueryData<Latest>(["latest", id], (before) => before && latestWith(before, event));
  client.setQueryData<JobDetail>(["job", id], (before) => before && jobWith(before, event));
  client.setQueriesData<Pages>({ queryKey: ["jobs"] }, (before) => before && jobsWith(before, event));
  const incomplete: Key[] = [];
  for (const [queryKey, set] of curves(client, id)) {
    if (!set) continue;
    const next = isNext(set, event) ? seriesWith(set, queryKey.slice(2) as string[], event) : set;
    if (next !== set) client.setQueryData(queryKey, next);
    if (!isNext(set, event) || isTooLong(next)) incomplete.push(queryKey as Key);
  }
  return incomplete;
}

const curves = (client: QueryClient, id: string) =>
  ["series", "spark"].flatMap((name) => client.getQueriesData<SeriesSet>({ queryKey: [name, id] }));
