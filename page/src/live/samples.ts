// Completions of one prompt together, and a colour for a reward among others. Pure.
import type { Figure, Sample } from "../api/types";

/** In the order in which groups first come; sorted by reward, only neighbours are joined, so that the order stays. */
export function grouped(samples: readonly Sample[], joinsAll: boolean): Sample[][] {
  const groups = new Map<string, Sample[]>();
  let last = "";
  let run = 0;
  for (const sample of samples) {
    const own = `${sample.kind} ${sample.step} ${sample.request_id}`;
    if (own !== last) run += 1;
    last = own;
    const name = joinsAll ? own : `${own} ${run}`;
    const group = groups.get(name);
    if (group) group.push(sample);
    else groups.set(name, [sample]);
  }
  const byReward = (a: Sample, b: Sample) => (b.reward ?? -Infinity) - (a.reward ?? -Infinity);
  return [...groups.values()].map((group) => (joinsAll ? [...group].sort(byReward) : group));
}

/** From red over nothing to green, between the least and the greatest reward that is shown. */
export function rewardColour(reward: Figure, among: readonly Pick<Sample, "reward">[]): string | undefined {
  if (reward === null) return undefined;
  const all = among.flatMap((each) => (each.reward === null ? [] : [each.reward]));
  const least = Math.min(...all);
  const most = Math.max(...all);
  if (!(most > least)) return undefined;
  const at = (reward - least) / (most - least) - 0.5;
  const strength = Math.round(Math.abs(at) * 2 * 34);
  return `color-mix(in srgb, var(${at < 0 ? "--bad" : "--good"}) ${strength}%, var(--surface))`;
}

/** That with the greatest reward, the first of equals; undefined where none has one. */
export function bestOf<One extends Pick<Sample, "reward">>(group: readonly One[]): One | undefined {
  return group.reduce<One | undefined>((best, each) => (each.reward !== null && (best?.reward ?? -Infinity) < each.reward ? each : best), undefined);
}
