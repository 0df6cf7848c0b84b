// The tab's one stream: what it says makes queries out of date, several messages together.
import { useQueryClient } from "@tanstack/react-query";
import { createContext, type ReactNode, useContext, useEffect, useRef, useState } from "react";
import { useMatch } from "react-router";
import { address } from "../api/client";
import type { Event } from "../api/types";
import { effects, type Key } from "./effects";
import { type Source, type Status, Stream } from "./stream";

const LiveStatus = createContext<Status>("connecting");
export const useLive = () => useContext(LiveStatus);

const TOGETHER_MS = 400;
/** Lists cost the service more than one job does. */
const LIST_MS = 3000;

function wait_ms(key: Key): number {
  return key[0] === "jobs" || key[0] === "spark" || key[0] === "samples" || key[0] === "components" ? LIST_MS : TOGETHER_MS;
}

export function Live({ children }: { children: ReactNode }) {
  const client = useQueryClient();
  const [status, setStatus] = useState<Status>("connecting");
  const jobId = useMatch("/jobs/:id/*")?.params.id;
  const isOfJob = jobId !== undefined && jobId.startsWith("job_");
  const wasAway = useRef(false);

  useEffect(() => {
    const timers = new Map<string, ReturnType<typeof setTimeout>>();
    const soon = (queryKey: Key) => {
      const name = queryKey.join(" ");
      if (timers.has(name)) return;
      const act = () => {
        timers.delete(name);
        void client.invalidateQueries({ queryKey });
      };
      timers.set(name, setTimeout(act, wait_ms(queryKey)));
    };
    const stream = new Stream({
      url: (after) => {
        const topics = isOfJob ? "jobs,workers,metrics,logs" : "jobs,metrics";
        return address("/events/stream", { topics, job_id: isOfJob ? jobId : null, after });
      },
      open: (url) => new EventSource(url) as unknown as Source,
      onMessage: (topic, data) => {
        if (topic === "resync") return void client.resetQueries({ predicate: (query) => query.queryKey[0] !== "me" });
        const { stale, gone } = effects(topic, data as Event);
        for (const queryKey of gone) void client.resetQueries({ queryKey });
        for (const queryKey of stale) soon(queryKey);
      },
      onStatus: (next) => {
        setStatus(next);
        if (next === "live" && wasAway.current) void client.invalidateQueries();
        // What happened between the first look and the stream's beginning is in neither.
        else if (next === "live") soon(isOfJob ? ["job", jobId] : ["jobs"]);
        wasAway.current = next === "away";
      },
      later: (action, delay) => {
        const timer = setTimeout(action, delay);
        return () => clearTimeout(timer);
      },
    });
    stream.start();
    return () => {
      stream.stop();
      for (const timer of timers.values()) clearTimeout(timer);
    };
  }, [client, isOfJob, jobId]);

  return <LiveStatus value={status}>{children}</LiveStatus>;
}
