import { expect, it } from "vitest";
import { roleShares, timeSplit } from "./split";

const STEP = { "driver/step_s": 10, "driver/gather_s": 6, "driver/update_s": 2, "weights/hand_over_s": 1, "weights/adopt_s": 0.5 };

it("the parts of a step make a whole", () => {
  expect(timeSplit(STEP)!.parts.reduce((sum, part) => sum + part.share, 0)).toBeCloseTo(1);
});
it("parts that add up to more than the step are scaled, not cut", () => {
  const parts = timeSplit({ ...STEP, "driver/step_s": 8 })!.parts;
  expect(parts.map((part) => part.name)).not.toContain("Other");
  expect(parts.reduce((sum, part) => sum + part.share, 0)).toBeCloseTo(1);
});
it("before the first step there is nothing to split", () => {
  expect(timeSplit({})).toBe(null);
});
it("a role that did not say how idle it was is left out", () => {
  expect(timeSplit({ ...STEP, "rollout/idle_share": 0.25, "reward/idle_share": null })!.busy).toEqual([{ role: "rollout", share: 0.75 }]);
});
it("the learner waits for rollouts, every other role for work", () => {
  const time = { busy: 0.4, waiting: 0.6, adopting: 0, other: 0 };
  expect(roleShares({ role: "learner", ...time }).map((each) => each.name)).toEqual(["busy", "waiting for rollouts"]);
  expect(roleShares({ role: "reward", ...time })[1]!.name).toBe("waiting for work");
});
