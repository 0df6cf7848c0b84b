import { expect, it } from "vitest";
import { askOf, favoursSide, Stopwatch } from "./labelling";

const press = (key: string, rest = {}) => askOf({ key, ctrlKey: false, metaKey: false, altKey: false, repeat: false, tag: "BODY", ...rest });

it("each key says one thing, also with Shift or Caps Lock", () => {
  expect(["1", "2", "0", "s", "u", "S", "U"].map((key) => press(key))).toEqual(["left", "right", "tie", "skip", "undo", "skip", "undo"]);
  expect(["3", "Enter", "Tab", "Escape"].map((key) => press(key))).toEqual([null, null, null, null]);
});
it("keys of the browser, keys held down and keys typed into a field say nothing", () => {
  for (const rest of [{ ctrlKey: true }, { metaKey: true }, { altKey: true }, { repeat: true }, { tag: "INPUT" }, { tag: "SELECT" }, { tag: "TEXTAREA" }])
    expect(press("1", rest)).toBeNull();
  expect(press("1", { tag: "BUTTON" })).toBe("left");
});
it("only the time counts in which the page is seen", () => {
  const watch = new Stopwatch(1000, true);
  watch.seen(false, 3000);
  expect(watch.seconds(90_000)).toBe(2);
  watch.seen(true, 90_000);
  expect(watch.seconds(91_500)).toBe(3.5);
  watch.seen(true, 91_500);
  expect(watch.seconds(91_500)).toBe(3.5);
});
it("a page that is opened behind others has not been seen", () => {
  expect(new Stopwatch(0, false).seconds(9000)).toBe(0);
});
it("a side is favoured where a half is not within the interval", () => {
  const intervals = [[0.4, 0.7], [0.51, 0.8], [0.1, 0.49], [0, 1]] as [number, number][];
  expect(intervals.map((left_interval) => favoursSide({ left_interval }))).toEqual([false, true, true, false]);
});
