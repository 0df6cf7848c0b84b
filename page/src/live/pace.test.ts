import { expect, it } from "vitest";
import { EVERY_MS, Pace } from "./pace";

function paced(chance = 0) {
  let now_ms = 0;
  const asked: string[] = [];
  const due: { at_ms: number; action: () => void }[] = [];
  const clock = {
    now_ms: () => now_ms,
    chance: () => chance,
    later: (action: () => void, delay_ms: number) => {
      const one = { at_ms: now_ms + delay_ms, action };
      due.push(one);
      return () => void due.splice(due.indexOf(one), 1);
    },
  };
  const pace = new Pace(clock, (key) => asked.push(key.join(" ")));
  const until = (end_ms: number) => {
    for (;;) {
      const next = due.filter((each) => each.at_ms <= end_ms).sort((a, b) => a.at_ms - b.at_ms)[0];
      if (!next) break;
      due.splice(due.indexOf(next), 1);
      now_ms = next.at_ms;
      next.action();
    }
    now_ms = end_ms;
  };
  return { pace, asked, until };
}

it("a hundred messages in ten seconds are a handful of questions", () => {
  const { pace, asked, until } = paced();
  for (let at = 0; at < 100; at += 1) {
    pace.want(["pools", "job_1"]);
    until(at * 100);
  }
  until(20_000);
  expect(asked.length).toBeLessThanOrEqual(10_000 / EVERY_MS + 2);
});
it("the first piece of news is asked about at once, almost", () => {
  const { pace, asked, until } = paced();
  pace.want(["pools", "job_1"]);
  until(200);
  expect(asked).toEqual(["pools job_1"]);
});
it("different things do not wait for each other", () => {
  const { pace, asked, until } = paced();
  pace.want(["pools", "job_1"]);
  pace.want(["job", "job_1"]);
  until(200);
  expect(asked.length).toBe(2);
});
it("a hidden tab asks for nothing, and once for all it missed when it is seen", () => {
  const { pace, asked, until } = paced();
  pace.seen(false);
  for (let at = 0; at < 5; at += 1) pace.want(["pools", "job_1"]);
  until(60_000);
  expect(asked).toEqual([]);
  pace.seen(true);
  until(60_300);
  expect(asked).toEqual(["pools job_1"]);
});
it("tabs that hear the same ask at different times", () => {
  const [early, late] = [paced(0), paced(1)];
  for (const { pace, until } of [early, late]) {
    pace.want(["job", "job_1"]);
    until(160);
  }
  expect([early.asked.length, late.asked.length]).toEqual([1, 0]);
});
