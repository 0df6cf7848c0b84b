import { expect, it } from "vitest";
import type { Job, JobDetail } from "../api/types";
import { isNext, jobsWith, jobWith, latestWith, seriesWith, type Told } from "./deltas";

const step = (at: number, metrics: Record<string, number | null> = { "reward/mean": at / 10 }): Told =>
  ({ topic: "metrics", kind: "StepDone", job_id: "job_1", step: at, body: { metrics } });
const SET = { series: [{ key: "reward/mean", steps: [1, 2], values: [0.1, 0.2], lows: null, highs: null }], last_step: 2 };
const KEYS = ["reward/mean", "learner/kl"];

it("a step becomes one more point of every curve that shows it", () => {
  const after = seriesWith(SET, KEYS, step(3, { "reward/mean": 0.3, "learner/kl": null, "driver/step_s": 2 }));
  expect(after.series.map((each) => [each.key, each.steps])).toEqual([["reward/mean", [1, 2, 3]], ["learner/kl", [3]]]);
  expect(after.last_step).toBe(3);
});
it("a step that is told twice is drawn once", () => {
  const twice = seriesWith(seriesWith(SET, KEYS, step(3)), KEYS, step(3));
  expect(twice.series[0]!.steps).toEqual([1, 2, 3]);
});
it("a step that is told late does not cut off what came after it", () => {
  expect(seriesWith(SET, KEYS, step(1)).series[0]!.steps).toEqual([1, 2]);
});
it("a step that a resumed job does again replaces what it was", () => {
  expect(seriesWith(SET, KEYS, step(1, { "reward/mean": 9 })).series[0]!.values).toEqual([9, 0.2]);
});
it("a step after one that was not told is asked for with that one", () => {
  const set = { ...SET, last_step: 1 };
  expect([3, 4].map((at) => isNext(set, step(at)))).toEqual([true, false]);
});
it("the ends of a band follow where steps were merged", () => {
  const merged = { ...SET, series: [{ ...SET.series[0]!, lows: [0, 0.1], highs: [0.2, 0.3] }] };
  const { lows, highs } = seriesWith(merged, KEYS, step(3)).series[0]!;
  expect([lows, highs]).toEqual([[0, 0.1, 0.3], [0.2, 0.3, 0.3]]);
});
it("a message that is no step changes nothing", () => {
  const said: Told = { topic: "jobs", kind: "CheckpointSaved", job_id: "job_1", step: 9, body: {} };
  expect(seriesWith(SET, KEYS, said)).toBe(SET);
  expect(latestWith({ values: {}, step: 2 }, said)).toEqual({ values: {}, step: 2 });
});
it("an evaluation of the newest step adds its figures, and an older step takes none back", () => {
  const latest = { values: { "reward/mean": 0.2 }, step: 2 };
  expect(latestWith(latest, step(2, { "eval/reward_mean": 0.5 })).values).toEqual({ "reward/mean": 0.2, "eval/reward_mean": 0.5 });
  expect(latestWith(latest, step(1))).toBe(latest);
});
it("the job and its line in the list move on, and others stay", () => {
  const job = { job_id: "job_1", step: 2, num_steps: 9 } as JobDetail;
  const other = { job_id: "job_2", step: 2, num_steps: 9 } as Job;
  expect(jobWith(job, step(3)).step).toBe(3);
  expect(jobWith(job, step(12)), "prompts of a task after the last step").toBe(job);
  const pages = { pages: [{ items: [job as Job, other], next_cursor: null }], pageParams: [null] };
  expect(jobsWith(pages, step(3)).pages[0]!.items.map((each) => each.step)).toEqual([3, 2]);
  expect(jobsWith(pages, step(2))).toBe(pages);
});
