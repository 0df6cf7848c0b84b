// What the views read, by key. The stream says which keys are out of date: live/effects.ts.
import {
  keepPreviousData, type QueryClient, useInfiniteQuery, useMutation, useQuery, useQueryClient,
} from "@tanstack/react-query";
import { added, isTooLong } from "../live/series";
import { isOver } from "../words";
import { get, type Query, send } from "./client";
import type {
  Attempt, Checkpoint, Cluster, Command, Event, Job, JobDetail, Latest, LogLine, Me, Page, Pool, Recipe, Sample, SampleStep,
  SeriesSet, SetPool, Version,
} from "./types";

export const useMe = (enabled: boolean) =>
  useQuery({ queryKey: ["me"], queryFn: ({ signal }) => get<Me>("/auth/me", {}, signal), staleTime: Infinity, enabled });
export const useVersion = () =>
  useQuery({ queryKey: ["version"], queryFn: () => get<Version>("/version"), staleTime: Infinity });
export const useCluster = () =>
  useQuery({ queryKey: ["cluster"], queryFn: () => get<Cluster>("/cluster"), refetchInterval: 5000 });
export const useRecipes = () =>
  useQuery({ queryKey: ["recipes"], queryFn: async () => itemsOf(await get<Page<Recipe>>("/recipes")), staleTime: Infinity });

export interface JobFilter {
  state?: string[];
  q?: string;
}

export const useJobs = (filter: JobFilter) =>
  useInfiniteQuery({
    queryKey: ["jobs", filter],
    queryFn: ({ pageParam, signal }) =>
      get<Page<Job>>("/jobs", { limit: 50, cursor: pageParam, state: filter.state, q: filter.q }, signal),
    initialPageParam: null as string | null,
    getNextPageParam: (last) => last.next_cursor,
    placeholderData: keepPreviousData,
  });

export const useJob = (id: string) =>
  useQuery({ queryKey: ["job", id], queryFn: ({ signal }) => get<JobDetail>(`/jobs/${id}`, {}, signal) });

export const usePools = (id: string) =>
  useQuery({
    queryKey: ["pools", id],
    queryFn: async ({ signal }) => itemsOf(await get<Page<Pool>>(`/jobs/${id}/pools`, {}, signal)),
  });

export const useLatest = (id: string) =>
  useQuery({ queryKey: ["latest", id], queryFn: ({ signal }) => get<Latest>(`/jobs/${id}/metrics`, {}, signal) });

/** One small curve, for a line of the list. */
export const useSpark = (job: Job, key = "reward/mean") =>
  useQuery({
    queryKey: ["spark", job.job_id, key],
    queryFn: ({ signal }) =>
      get<SeriesSet>(`/jobs/${job.job_id}/metrics/series`, { key: [key], max_points: 60 }, signal),
    staleTime: isOver(job) ? Infinity : 0,
    enabled: job.step > 0,
  });

/** Whole once, then only what came since: see `added`. */
export function useSeries(id: string, keys: readonly string[]) {
  const client = useQueryClient();
  const queryKey = ["series", id, ...keys];
  return useQuery({
    queryKey,
    enabled: keys.length > 0,
    queryFn: async ({ signal }) => {
      const before = client.getQueryData<SeriesSet>(queryKey);
      const path = `/jobs/${id}/metrics/series`;
      if (!before || isTooLong(before)) return get<SeriesSet>(path, { key: keys, max_points: 2000 }, signal);
      return added(before, await get<SeriesSet>(path, { key: keys, after_step: before.last_step }, signal));
    },
    structuralSharing: false,
  });
}

export const useAttempts = (id: string) =>
  useQuery({
    queryKey: ["attempts", id],
    queryFn: async ({ signal }) => itemsOf(await get<Page<Attempt>>(`/jobs/${id}/attempts`, {}, signal)),
  });

export const useCheckpoints = (id: string) =>
  useQuery({
    queryKey: ["checkpoints", id],
    queryFn: async ({ signal }) =>
      itemsOf(await get<Page<Checkpoint>>(`/jobs/${id}/checkpoints`, {}, signal)),
  });

export const useEvents = (id: string, filter: Query = {}, limit = 100) =>
  useInfiniteQuery({
    queryKey: ["events", id, filter, limit],
    queryFn: ({ pageParam, signal }) =>
      get<Page<Event>>(`/jobs/${id}/events`, { limit, cursor: pageParam, ...filter }, signal),
    initialPageParam: null as string | null,
    getNextPageParam: (last) => last.next_cursor,
    placeholderData: keepPreviousData,
  });

export const useSamples = (id: string, filter: Query) =>
  useInfiniteQuery({
    queryKey: ["samples", id, filter],
    queryFn: ({ pageParam, signal }) =>
      get<Page<Sample>>(`/jobs/${id}/samples`, { limit: 64, cursor: pageParam, ...filter }, signal),
    initialPageParam: null as string | null,
    getNextPageParam: (last) => last.next_cursor,
    placeholderData: keepPreviousData,
  });

export const useSampleSteps = (id: string) =>
  useQuery({
    queryKey: ["samples", id, "steps"],
    queryFn: async ({ signal }) => itemsOf(await get<Page<SampleStep>>(`/jobs/${id}/samples/steps`, {}, signal)),
  });

export const useComponents = (id: string) =>
  useQuery({
    queryKey: ["components", id],
    queryFn: async ({ signal }) => itemsOf(await get<Page<string>>(`/jobs/${id}/logs/components`, {}, signal)),
  });

const LINES_KEPT = 4000;

/** The last lines once, then those that came since. */
export function useLogs(id: string, filter: { component?: string; q?: string }) {
  const client = useQueryClient();
  const queryKey = ["logs", id, filter];
  return useQuery({
    queryKey,
    queryFn: async ({ signal }) => {
      const before = client.getQueryData<LogLine[]>(queryKey) ?? [];
      const last = before.at(-1);
      const asked = last ? { after: last.line_id, limit: 1000 } : { tail: 500, limit: 1000 };
      const answer = await get<Page<LogLine>>(`/jobs/${id}/logs`, { ...asked, ...filter }, signal);
      const known = last?.line_id ?? -1;
      return [...before, ...itemsOf(answer).filter((line) => line.line_id > known)].slice(-LINES_KEPT);
    },
    structuralSharing: false,
  });
}

/** Of a list that comes whole. */
function itemsOf<Item>(answer: Page<Item>): Item[] {
  return answer.items;
}

export type Verb = "cancel" | "kill" | "pause" | "resume" | "checkpoint" | "retry" | "clone";

export function useVerb(id: string) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: ({ verb, key }: { verb: Verb; key: string }) =>
      send<Command | Job>("POST", `/jobs/${id}/${verb}`, { headers: { "Idempotency-Key": key } }),
    onSettled: () => refresh(client, id),
  });
}

export function useSetPool(id: string) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: ({ pool, want }: { pool: Pool; want: SetPool }) =>
      send<Pool>("PUT", `/jobs/${id}/pools/${pool.pool}`, {
        body: want, headers: { "If-Match": `"${pool.generation}"` },
      }),
    // The next change needs the generation that this one made.
    onSuccess: (made) =>
      client.setQueryData<Pool[]>(["pools", id], (before) => before?.map((each) => (each.pool === made.pool ? made : each))),
    onSettled: () => client.invalidateQueries({ queryKey: ["pools", id] }),
  });
}

export function useDrain(id: string) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: ({ workerId, key }: { workerId: string; key: string }) =>
      send<Command>("POST", `/jobs/${id}/workers/${encodeURIComponent(workerId)}/drain`, {
        headers: { "Idempotency-Key": key },
      }),
    onSettled: () => client.invalidateQueries({ queryKey: ["pools", id] }),
  });
}

async function refresh(client: QueryClient, id: string): Promise<void> {
  await Promise.all(
    [["job", id], ["jobs"], ["pools", id], ["attempts", id], ["events", id]].map((queryKey) =>
      client.invalidateQueries({ queryKey }),
    ),
  );
}
