import { expect, it } from "vitest";
import { ago, bytes, count, duration, figure, fixed, percent } from "./format";

it("figures have four digits and no exponent where people do not need one", () => {
  expect([0.41237, 1234.6, 0.00001, 3, 0].map((value) => figure(value))).toEqual(["0.4124", "1,235", "1e-5", "3", "0"]);
});
it("what is not finite is a dash, never a zero", () => {
  expect([figure(null), fixed(undefined, 2), percent(null), bytes(0)]).toEqual(["–", "–", "–", "–"]);
});
it("durations name their two greatest units", () => {
  expect([7.4, 192, 7500, 200_000].map(duration)).toEqual(["7s", "3m12s", "2h05m", "2d07h"]);
});
it("a clock that runs ahead of ours says just now", () => {
  expect(ago(100, 99)).toBe("just now");
});
it("counts grow shorter as they grow", () => {
  expect([999, 9_999, 12_345, 123_456, 1_234_567].map(count)).toEqual(["999", "9,999", "12.3k", "123k", "1.2M"]);
});
it("sizes are in powers of 1024", () => {
  expect([2048, 5 * 2 ** 20, 1.5 * 2 ** 30].map(bytes)).toEqual(["2 KiB", "5 MiB", "1.5 GiB"]);
});
