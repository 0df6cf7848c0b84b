import { expect, it } from "vitest";
import { flat, lineOf, written } from "./toml";

const FILE = `name = "a"
[train]
num_steps = 0
[[rewards]]
function = "vader"
[[rewards]]
function = "regex"
weight = -1
[learner.optimizer]
lr = 1e-4`;

it("a key is found in its table, also in the second of a list and in a nested one", () => {
  expect([lineOf(FILE, "train.num_steps"), lineOf(FILE, "rewards.1.weight"), lineOf(FILE, "learner.optimizer.lr")]).toEqual([3, 8, 10]);
});
it("a key that is missing is shown at its table", () => {
  expect(lineOf(FILE, "train.prompts_per_step")).toBe(2);
});
it("a key of a table that is missing is shown nowhere", () => {
  expect(lineOf(FILE, "rollout.num_workers")).toBe(null);
});
it("values are written as a job file writes them", () => {
  expect([written(1), written("a"), written([1, "b"]), written(true)]).toEqual(["1", '"a"', '[1, "b"]', "true"]);
});
it("a tree becomes dotted keys", () => {
  expect(flat({ a: { b: 1 }, rewards: [{ f: "x" }], list: [1, 2], none: {} })).toEqual([
    ["a.b", 1], ["rewards.0.f", "x"], ["list", [1, 2]], ["none", {}],
  ]);
});
