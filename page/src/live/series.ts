// Pure arithmetic on series: adding what came since, smoothing, and joining many keys over one axis of steps.
import type { Figure, Series, SeriesSet } from "../api/types";

/** Points of one chart; with more, everything is asked for again and the service merges steps. */
export const MAX_POINTS = 4000;

/** `newer` over `older`: the steps from its first to its last are taken from `newer`. What came later than that stays. */
export function joined(older: Series, newer: Series): Series {
  const first = newer.steps[0];
  if (first === undefined) return older;
  let keep = older.steps.length;
  while (keep > 0 && (older.steps[keep - 1] ?? 0) >= first) keep -= 1;
  let after = older.steps.length;
  while (after > keep && (older.steps[after - 1] ?? 0) > newer.steps.at(-1)!) after -= 1;
  const around = <Item>(of: readonly Item[], between: readonly Item[]) => [...of.slice(0, keep), ...between, ...of.slice(after)];
  const column = (name: "lows" | "highs"): Figure[] | null =>
    older[name] || newer[name] ? around(older[name] ?? older.values, newer[name] ?? newer.values) : null;
  return {
    key: older.key,
    steps: around(older.steps, newer.steps),
    values: around(older.values, newer.values),
    lows: column("lows"),
    highs: column("highs"),
  };
}

/** A delta, fetched with `after_step`, added to what is there. Keys that are new come along. */
export function added(older: SeriesSet, delta: SeriesSet): SeriesSet {
  const known = new Map(older.series.map((each) => [each.key, each]));
  for (const each of delta.series) {
    const before = known.get(each.key);
    known.set(each.key, before ? joined(before, each) : each);
  }
  return { series: [...known.values()], last_step: Math.max(older.last_step, delta.last_step) };
}

export function isTooLong(set: SeriesSet): boolean {
  return set.series.some((each) => each.steps.length > MAX_POINTS);
}

/**
 * Exponential moving average, `weight` of the past from 0 to below 1. Without bias at the start, and holes stay holes.
 */
export function smoothed(values: readonly Figure[], weight: number): Figure[] {
  if (weight <= 0) return [...values];
  let sum = 0;
  let norm = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = weight * sum + (1 - weight) * value;
    norm = weight * norm + (1 - weight);
    return sum / norm;
  });
}

export interface Columns {
  steps: number[];
  columns: Figure[][];
}

/** One row of steps for several series; a series without a value at a step has null there. */
export function aligned(many: readonly { steps: readonly number[]; values: readonly Figure[] }[]): Columns {
  const steps = [...new Set(many.flatMap((each) => each.steps))].sort((a, b) => a - b);
  const columns = many.map((each) => {
    const at = new Map(each.steps.map((step, index) => [step, each.values[index] ?? null]));
    return steps.map((step) => at.get(step) ?? null);
  });
  return { steps, columns };
}
