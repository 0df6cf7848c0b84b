import { expect, it } from "vitest";
import { ApiError } from "./errors";
import { problemsOf } from "./problems";

const refused = (detail: string, errors: { loc: string; msg: string }[] = []) =>
  new ApiError({ title: "", status: 422, detail, code: "invalid_job", errors, request_id: "" });

it("every line of a refused job is about its key", () => {
  const told = problemsOf(refused("job file:\n  train.num_steps = 0: must be at least 1\n  rewards.0.weight: is missing"));
  expect(told.map((each) => each.loc)).toEqual(["train.num_steps", "rewards.0.weight"]);
});
it("a sentence about no key is still shown", () => {
  expect(problemsOf(refused("recipe 'x' does not exist; recipes are a, b"))).toEqual([{ loc: "", msg: "recipe 'x' does not exist; recipes are a, b" }]);
});
it("problems that come one by one are taken as they are", () => {
  expect(problemsOf(refused("", [{ loc: "body.max_attempts", msg: "too many" }]))).toEqual([{ loc: "max_attempts", msg: "too many" }]);
});
