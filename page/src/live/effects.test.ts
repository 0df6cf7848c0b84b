import { expect, it } from "vitest";
import { effects } from "./effects";

const event = (kind: string) => ({ job_id: "job_1", kind });

it("a step makes no figure out of date: it brings them", () => {
  const names = effects("metrics", event("StepDone")).stale.map((key) => key[0]);
  expect(names.filter((name) => ["series", "latest", "job", "jobs"].includes(name!))).toEqual([]);
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
