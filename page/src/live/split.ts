// Where the time of a step goes, from its metrics. Pure; the same parts as flow/bottleneck.py names.
import type { Figure } from "../api/types";

export interface TimeSplit {
  parts: { name: string; share: number; colour: string }[];
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
  const parts: TimeSplit["parts"] = known.map(([name, each, colour]) => ({ name, share: each / whole_s, colour }));
  parts.push({ name: "Other", share: (whole_s - told_s) / whole_s, colour: "var(--line-strong)" });
  const busy = ["rollout", "reward", "reference", "learner"].flatMap((role) => {
    const idle = values[`${role}/idle_share`];
    return idle === null || idle === undefined ? [] : [{ role, share: 1 - idle }];
  });
  return { parts: parts.filter((part) => part.share >= 0.005), busy };
}
