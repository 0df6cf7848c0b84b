import { describe, expect, it } from "vitest";
import type { Series } from "../api/types";
import { added, aligned, joined, smoothed } from "./series";

const series = (steps: number[], values: (number | null)[], key = "reward/mean"): Series => ({
  key, steps, values, lows: null, highs: null,
});

describe("a delta", () => {
  it("goes behind what is there", () => {
    expect(joined(series([1, 2], [0.1, 0.2]), series([3], [0.3])).values).toEqual([0.1, 0.2, 0.3]);
  });
  it("replaces steps that a resumed job did again", () => {
    const again = joined(series([1, 2, 3], [0.1, 0.2, 0.3]), series([2, 3], [9, 9]));
    expect(again.steps).toEqual([1, 2, 3]);
    expect(again.values).toEqual([0.1, 9, 9]);
  });
  it("that is late leaves what came after it", () => {
    expect(joined(series([1, 2, 3], [0.1, 0.2, 0.3]), series([2], [9])).values).toEqual([0.1, 9, 0.3]);
  });
  it("that is empty changes nothing", () => {
    const older = series([1], [1]);
    expect(joined(older, series([], []))).toBe(older);
  });
  it("of raw points behind merged ones keeps the band as long as the line", () => {
    const merged = { ...series([10, 20], [1, 2]), lows: [0, 1], highs: [2, 3] };
    const all = joined(merged, series([21], [5]));
    expect([all.lows, all.highs]).toEqual([[0, 1, 5], [2, 3, 5]]);
  });
  it("may bring a key that was not there", () => {
    const all = added({ series: [series([1], [1])], last_step: 1 }, { series: [series([2], [2], "learner/kl")], last_step: 2 });
    expect(all.series.map((each) => each.key)).toEqual(["reward/mean", "learner/kl"]);
    expect(all.last_step).toBe(2);
  });
});

describe("smoothing", () => {
  it("of a constant is that constant from the first point on", () => {
    for (const value of smoothed([3, 3, 3, 3], 0.9)) expect(value).toBeCloseTo(3);
  });
  it("with weight 0 changes nothing", () => {
    expect(smoothed([1, null, 2], 0)).toEqual([1, null, 2]);
  });
  it("leaves holes where values were not finite", () => {
    expect(smoothed([1, null, 1], 0.5)).toEqual([1, null, 1]);
  });
  it("stays between the least and the greatest value", () => {
    for (const value of smoothed([0, 10, 0, 10], 0.7)) {
      expect(value).toBeGreaterThanOrEqual(0);
      expect(value).toBeLessThanOrEqual(10);
    }
  });
});

it("series of different steps share one axis", () => {
  expect(aligned([series([1, 3], [1, 3]), series([2, 3], [20, 30])])).toEqual({
    steps: [1, 2, 3],
    columns: [[1, null, 3], [null, 20, 30]],
  });
});
