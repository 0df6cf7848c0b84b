import { expect, it } from "vitest";
import { effects } from "./effects";

const event = (kind: string) => ({ job_id: "job_1", kind });

it("a step of one job leaves other jobs' charts alone", () => {
  const keys = effects("metrics", event("StepDone")).stale.filter((key) => key.length > 1);
  expect(keys.every((key) => key[1] === "job_1")).toBe(true);
});
it("a job that starts again forgets its curves: it does some steps once more", () => {
  expect(effects("jobs", event("JobStarted")).gone).toContainEqual(["series", "job_1"]);
});
it("a checkpoint forgets nothing", () => {
  expect(effects("jobs", event("CheckpointSaved")).gone).toEqual([]);
});
it("a topic of a newer service is passed over", () => {
  expect(effects("weather", event("Rain"))).toEqual({ stale: [], gone: [] });
});
