import { expect, it } from "vitest";
import type { Sample } from "../api/types";
import { bestOf, grouped, rewardColour } from "./samples";

const sample = (sample_id: number, request_id: number, reward: number | null): Sample => ({
  sample_id, kind: "step", step: 1, request_id, prompt_id: "p", prompt: "", completion: "", reward, breakdown: {}, num_tokens: 1, body: {},
});
const ids = (groups: Sample[][]) => groups.map((group) => group.map((each) => each.sample_id));

it("completions of one prompt come together, best first", () => {
  expect(ids(grouped([sample(1, 7, 0.1), sample(2, 8, 0.5), sample(3, 7, 0.9), sample(4, 7, null)], true))).toEqual([[3, 1, 4], [2]]);
});
it("sorted by reward, the order is kept and only neighbours are joined", () => {
  expect(ids(grouped([sample(1, 7, 0.9), sample(2, 8, 0.5), sample(3, 7, 0.1)], false))).toEqual([[1], [2], [3]]);
});
it("rewards that are all the same have no colour", () => {
  expect(rewardColour(1, [sample(1, 1, 1), sample(2, 1, 1)])).toBe(undefined);
});
it("a reward that is not there has no colour", () => {
  expect(rewardColour(null, [sample(1, 1, 0), sample(2, 1, 1)])).toBe(undefined);
});
it("the best of a group is the first with the greatest reward, and of failures none", () => {
  const [low, high, also] = [{ reward: 0.1 }, { reward: 0.9 }, { reward: 0.9 }];
  expect(bestOf([{ reward: null }, low, high, also])).toBe(high);
  expect(bestOf([{ reward: null }])).toBe(undefined);
});
