import { describe, expect, it } from "vitest";
import type { JobDetail, Pool } from "./api/types";
import { advice, health, inWords, poolStory } from "./words";

const pool = (fields: Partial<Pool>): Pool => ({
  pool: "rollout", is_elastic: true, mode: "manual", replicas: 2, min_replicas: null, max_replicas: null, generation: 1,
  observed_generation: 1, num_serving: 2, num_pending: 0, num_draining: 0, num_restarts: 0, pending_reason: "",
  last_error: "", workers: [], reason: "", recommended: null, ...fields,
});
const job = (fields: Partial<JobDetail>): JobDetail => ({
  job_id: "job_1", name: "a", owner: "me", labels: {}, state: "running", message: "", step: 1, num_steps: 9, unit: "steps", created_s: 0,
  started_s: 0, ended_s: null, notes: "", source: "", config: {}, changed: {}, max_attempts: 3, num_attempts: 1, phase: "",
  waiting_for: "", bottleneck: "", time_split: [], seen_s: 100, ...fields,
});

describe("a pool", () => {
  it("says that the driver has not obeyed yet before anything else", () => {
    expect(poolStory(pool({ generation: 2, replicas: 4, num_pending: 2 }))).toContain("Asked for 4");
  });
  it("gives the reason why a worker is pending", () => {
    expect(poolStory(pool({ num_pending: 1, pending_reason: "no node has 1 GPU free" }))).toBe(
      "1 not serving yet: no node has 1 GPU free",
    );
  });
  it("that is whole says so", () => {
    expect(poolStory(pool({}))).toBe("As many as wanted.");
  });
});

describe("the advice", () => {
  it("names the number and why", () => {
    expect(advice(pool({ recommended: 5, reason: "the learner waits" }))).toBe("5 would be better than 2: the learner waits");
  });
  it("is silent where nothing is known, and where a policy decides", () => {
    expect([advice(pool({})), advice(pool({ mode: "auto", recommended: 5 }))]).toEqual(["", ""]);
  });
  it("says so when the number is right", () => {
    expect(advice(pool({ recommended: 2 }))).toBe("2 is the right number at this pace.");
  });
});

describe("a job", () => {
  it("whose driver is silent is not called healthy", () => {
    expect(health(job({}), [], 160).headline).toBe("Not heard from");
  });
  it("that is over is not called silent", () => {
    expect(health(job({ state: "failed", message: "out of memory" }), [], 1e6)).toEqual({
      tone: "bad", headline: "Failed", detail: "out of memory",
    });
  });
  it("that lacks workers says of which kind and why", () => {
    const told = health(job({}), [pool({ num_pending: 1, pending_reason: "no node has 1 GPU free" })], 101);
    expect([told.headline, told.detail]).toEqual(["Short of rollout workers", "no node has 1 GPU free"]);
  });
});

describe("an event", () => {
  it("is told in the service's words where it has some", () => {
    expect(inWords({ kind: "Notice", text: "The disk is nearly full.", body: {}, step: 3 })).toBe("The disk is nearly full.");
  });
  it("of a kind that the page does not know is still readable", () => {
    expect(inWords({ kind: "PromptQuarantined", text: "", body: {}, step: 3 })).toBe("Prompt quarantined");
  });
});

it("what somebody asked is told as people say it", () => {
  const told = (body: Record<string, unknown>) => inWords({ kind: "Asked", text: "ada asked: scale, role = rollout", body, step: 3 });
  expect(told({ command: "Scale", role: "rollout", num_workers: 3 })).toBe("ada asked for 3 rollout workers");
  expect(told({ command: "Drain", worker_id: "rollout-1" })).toBe("ada asked to drain rollout-1");
  expect(told({ command: "Dance" })).toBe("ada asked: scale, role = rollout");
});
