// What an event of the stream itself says is put into what the page has: nothing is fetched for a step. Pure.
import type { Event, Figure, Job, JobDetail, Latest, Page, Series, SeriesSet } from "../api/types";

export type Told = Pick<Event, "topic" | "kind" | "job_id" | "step" | "body">;

/** The metrics of a step or of an evaluation; null for events of any other kind. */
export function metricsOf(event: Told): Record<string, Figure> | null {
  const metrics = event.body?.metrics;
  return event.topic === "metrics" && metrics !== null && typeof metrics === "object" ? (metrics as Record<string, Figure>) : null;
}

export function latestWith(latest: Latest, event: Told): Latest {
  const metrics = metricsOf(event);
  if (!metrics || event.step < latest.step) return latest;
  return { values: { ...latest.values, ...metrics }, step: event.step };
}

/** Whether nothing is missing between what the set has and the event: answers and events may cross on their way. */
export function isNext(set: SeriesSet, event: Told): boolean {
  // `last_step` is where to ask on, which may be before the newest.
  const newest = Math.max(set.last_step, ...set.series.map((each) => each.steps.at(-1) ?? -1));
  return event.step <= newest + 1;
}

/** `keys` are those that the set was asked for; a key is there only once it has a value. */
export function seriesWith(set: SeriesSet, keys: readonly string[], event: Told): SeriesSet {
  const metrics = metricsOf(event);
  const told = metrics ? keys.filter((key) => key in metrics) : [];
  if (!metrics || told.length === 0) return set;
  const known = new Map(set.series.map((each) => [each.key, each]));
  for (const key of told) known.set(key, point(known.get(key), key, event.step, metrics[key] ?? null));
  return { series: [...known.values()], last_step: Math.max(set.last_step, event.step) };
}

function point(series: Series | undefined, key: string, step: number, value: Figure): Series {
  if (!series) return { key, steps: [step], values: [value], lows: null, highs: null };
  const at = series.steps.lastIndexOf(step);
  // What is older and not there was merged with its neighbours by the service.
  if (at < 0 && step < (series.steps.at(-1) ?? -1)) return series;
  const end = at < 0 ? series.steps.length : at;
  const column = <Item>(of: readonly Item[], one: Item) => [...of.slice(0, end), one, ...of.slice(end + 1)];
  return {
    key,
    steps: column(series.steps, step),
    values: column(series.values, value),
    lows: series.lows && column(series.lows, value),
    highs: series.highs && column(series.highs, value),
  };
}

/** A job that has done its steps may generate yet, and then tells of prompts: they are no steps. */
const isFurther = (job: Job, event: Told) => event.step > job.step && event.step <= job.num_steps;

export function jobWith(job: JobDetail, event: Told): JobDetail {
  return metricsOf(event) && isFurther(job, event) ? { ...job, step: event.step } : job;
}

export interface Pages {
  pages: Page<Job>[];
  pageParams: unknown[];
}

export function jobsWith(pages: Pages, event: Told): Pages {
  const isMoved = (job: Job) => job.job_id === event.job_id && isFurther(job, event);
  if (!metricsOf(event) || !pages.pages.some((page) => page.items.some(isMoved))) return pages;
  const moved = (job: Job) => (isMoved(job) ? { ...job, step: event.step } : job);
  return { ...pages, pages: pages.pages.map((page) => ({ ...page, items: page.items.map(moved) })) };
}
