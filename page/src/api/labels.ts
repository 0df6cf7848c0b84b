// What the views of labelling read and say, by key.
import { useInfiniteQuery, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { get, newKey, send } from "./client";
import type { Label, LabelSet, LabelStatistics, Page, Side, Turn } from "./types";

const OTHERS_MS = 10_000;
const pathOf = (name: string) => `/label-sets/${encodeURIComponent(name)}`;

export const useLabelSets = () =>
  useInfiniteQuery({
    queryKey: ["label sets"],
    queryFn: ({ pageParam, signal }) => get<Page<LabelSet>>("/label-sets", { limit: 50, cursor: pageParam }, signal),
    initialPageParam: null as string | null,
    getNextPageParam: (last) => last.next_cursor,
    refetchInterval: OTHERS_MS,
  });

export const useLabelSet = (name: string) =>
  useQuery({
    queryKey: ["label set", name],
    queryFn: ({ signal }) => get<LabelSet>(pathOf(name), {}, signal),
    refetchInterval: OTHERS_MS,
  });

export const useLabelStatistics = (name: string) =>
  useQuery({
    queryKey: ["label set", name, "statistics"],
    queryFn: ({ signal }) => get<LabelStatistics>(`${pathOf(name)}/statistics`, {}, signal),
    refetchInterval: OTHERS_MS,
  });

/** The pair that one has before one. Asked for once a pair, and now and then while others have the last ones. */
export const useTurn = (name: string) =>
  useQuery({
    queryKey: ["turn", name],
    queryFn: () => send<Turn>("POST", `${pathOf(name)}/next`),
    staleTime: Infinity,
    gcTime: 0,
    refetchOnWindowFocus: false,
    refetchInterval: ({ state }) => (state.data?.num_elsewhere && !state.data.pair ? OTHERS_MS : false),
  });

export function useSayOfPair(name: string) {
  const refresh = useRefresh(name);
  return useMutation({
    mutationFn: (said: { pair_id: string; choice: Side; taken_s: number }) =>
      send<Label>("POST", `${pathOf(name)}/labels`, { body: said, headers: { "Idempotency-Key": newKey() } }),
    onSettled: refresh,
  });
}

export function useUndo(name: string) {
  const refresh = useRefresh(name);
  return useMutation({
    mutationFn: () => send<Label>("POST", `${pathOf(name)}/undo`, { headers: { "Idempotency-Key": newKey() } }),
    onSettled: refresh,
  });
}

/** Done when the next pair is there: until then nothing can be said of the one before a second time. */
function useRefresh(name: string) {
  const client = useQueryClient();
  return () => {
    void client.invalidateQueries({ queryKey: ["label set", name] });
    return client.invalidateQueries({ queryKey: ["turn", name] });
  };
}

export const exportPath = (name: string) => `${pathOf(name)}/export.jsonl`;
