import { expect, it } from "vitest";
import { difference, MAX_WORDS } from "./diff";

const [BEFORE, AFTER] = ["a warm and quiet film", "a great and quiet long film."];
const of = (kinds: string[]) => difference(BEFORE, AFTER)!.filter((each) => kinds.includes(each.kind)).map((each) => each.text).join("");

it("what stayed and what is new make the new text, what stayed and what is gone the old one", () => {
  expect(of(["same", "new"])).toBe(AFTER);
  expect(of(["same", "gone"])).toBe(BEFORE);
});
it("words in common are told once", () => {
  expect(difference("a b c", "a x c")!.map((each) => each.kind)).toEqual(["same", "gone", "new", "same"]);
});
it("equal texts have no difference", () => {
  expect(difference(BEFORE, BEFORE)).toEqual([{ kind: "same", text: BEFORE }]);
});
it("of nothing, everything is new", () => {
  expect(difference("", "all of it")).toEqual([{ kind: "new", text: "all of it" }]);
});
it("books are not compared", () => {
  expect(difference("word ".repeat(MAX_WORDS + 1), "")).toBe(null);
});
