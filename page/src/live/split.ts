// Where the time goes: of a step, from its metrics, and of every role, as the driver tells it. Pure.
import type { Figure, RoleTime } from "../api/types";

export interface Share {
  name: string;
  share: number;
  colour: string;
}

/** What a role did, in the order in which it is drawn. */
export function roleShares(time: RoleTime): Share[] {
  const parts: [string, Figure, string][] = [
    ["busy", time.busy, "var(--c2)"],
    [time.role === "learner" ? "waiting for rollouts" : "waiting for work", time.waiting, "var(--c3)"],
    ["handing over weights", time.adopting, "var(--c5)"],
    ["other", time.other, "var(--line-strong)"],
  ];
  return parts.map(([name, share, colour]) => ({ name, share: share ?? 0, colour })).filter((each) => each.share >= 0.005);
}

export interface TimeSplit {
  parts: Share[];
  busy: { role: string; share: number }[];
}

/** null before a step is finished. */
export function timeSplit(values: Record<string, Figure>): TimeSplit | null {
  const step_s = values["driver/step_s"];
  if (!step_s) return null;
  const seconds = (key: string) => values[key] ?? 0;
  const handOver_s = seconds("weights/hand_over_s");
  const adopt_s = Math.min(seconds("weights/adopt_s"), handOver_s);
  const known = [
    ["Waiting for rollouts", seconds("driver/gather_s"), "var(--c3)"],
    ["Updating", seconds("driver/update_s"), "var(--c1)"],
    ["Publishing weights", handOver_s - adopt_s, "var(--c4)"],
    ["Adopting weights", adopt_s, "var(--c5)"],
  ] as const;
  // Waits overlap by a rounding: shares never add up to more than the whole.
  const told_s = known.reduce((sum, [, each]) => sum + each, 0);
  const whole_s = Math.max(step_s, told_s);
  const parts: Share[] = known.map(([name, each, colour]) => ({ name, share: each / whole_s, colour }));
  parts.push({ name: "Other", share: (whole_s - told_s) / whole_s, colour: "var(--line-strong)" });
  const busy = ["rollout", "reward", "reference", "learner"].flatMap((role) => {
    const idle = values[`${role}/idle_share`];
    return idle === null || idle === undefined ? [] : [{ role, share: 1 - idle }];
  });
  return { parts: parts.filter((part) => part.share >= 0.005), busy };
}
