// What the views read, by key. The stream says which keys are out of date: live/effects.ts.
import {
  keepPreviousData, type QueryClient, useInfiniteQuery, useMutation, useQuery, useQueryClient,
} from "@tanstack/react-query";
import { added, isTooLong } from "../live/series";
import { isOver } from "../words";
import { get, type Query, send } from "./client";
import type {
  Attempt, Checkpoint, Cluster, Command, Event, Job, JobDetail, Latest, LogLine, Me, NewToken, Page, Pool, Recipe, Sample,
  SampleStep, Scope, SeriesSet, SetPool, Token, Version,
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

/** Whole once; steps are added as the stream tells them, and what it did not tell is asked for: see `added`. */
export function seriesOf(client: QueryClient, id: string, keys: readonly string[], max_points = 2000) {
  const queryKey = ["series", id, ...keys];
  const known = () => client.getQueryData<SeriesSet>(queryKey);
  return {
    queryKey,
    enabled: keys.length > 0,
    queryFn: async ({ signal }: { signal: AbortSignal }) => {
      const before = known();
      const path = `/jobs/${id}/metrics/series`;
      if (!before || isTooLong(before)) return get<SeriesSet>(path, { key: keys, max_points }, signal);
      const delta = await get<SeriesSet>(path, { key: keys, after_step: before.last_step }, signal);
      // The stream may have told of a step meanwhile.
      return added(known() ?? before, delta);
    },
    structuralSharing: false as const,
  };
}

export const useSeries = (id: string, keys: readonly string[]) => useQuery(seriesOf(useQueryClient(), id, keys));

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

/** What the policy wrote before its first step, when it still was the reference, by prompt. */
export const useFirstAnswers = (id: string, enabled: boolean) =>
  useQuery({
    queryKey: ["first answers", id],
    queryFn: async ({ signal }) => {
      const asked = { kind: "eval", step: 0, sort: "-reward", limit: 200 };
      const found = itemsOf(await get<Page<Sample>>(`/jobs/${id}/samples`, asked, signal));
      // The best of several answers: the last one put in stays.
      return new Map(found.reverse().map((sample) => [sample.prompt, sample]));
    },
    staleTime: Infinity,
    enabled,
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
    onSettled: () => void refresh(client, id),
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
    onSettled: () => void client.invalidateQueries({ queryKey: ["pools", id] }),
  });
}

/** Both hand the unfinished work over first; after a restart there are as many as before. */
export type WorkerVerb = "drain" | "restart";

export function useWorkerVerb(id: string) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: ({ workerId, verb, key }: { workerId: string; verb: WorkerVerb; key: string }) =>
      send<Command>("POST", `/jobs/${id}/workers/${encodeURIComponent(workerId)}/${verb}`, {
        headers: { "Idempotency-Key": key },
      }),
    onSettled: () => void client.invalidateQueries({ queryKey: ["pools", id] }),
  });
}

export const useTokens = (enabled: boolean) =>
  useQuery({ queryKey: ["tokens"], queryFn: async () => itemsOf(await get<Page<Token>>("/tokens")), enabled });

export function useNewToken() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (body: { name: string; scopes: Scope[]; expires_s: number | null }) => send<NewToken>("POST", "/tokens", { body }),
    onSettled: () => void client.invalidateQueries({ queryKey: ["tokens"] }),
  });
}

export function useRevoke() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (tokenId: string) => send<undefined>("DELETE", `/tokens/${tokenId}`),
    onSettled: () => void client.invalidateQueries({ queryKey: ["tokens"] }),
  });
}

async function refresh(client: QueryClient, id: string): Promise<void> {
  await Promise.all(
    [["job", id], ["jobs"], ["pools", id], ["attempts", id], ["events", id]].map((queryKey) =>
      client.invalidateQueries({ queryKey }),
    ),
  );
}
