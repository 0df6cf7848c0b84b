// What a key says of a pair, and how long somebody looked at it. Pure.
import type { LabelStatistics, Side } from "./api/types";

export type Ask = Side | "undo";

const KEYS: Readonly<Record<string, Ask>> = { "1": "left", "2": "right", "0": "tie", s: "skip", u: "undo" };

export interface Pressed {
  key: string;
  ctrlKey: boolean;
  metaKey: boolean;
  altKey: boolean;
  /** Held down: one press is one label. */
  repeat: boolean;
  /** Of the element that has the focus. */
  tag: string;
}

const WRITES = ["INPUT", "TEXTAREA", "SELECT"];

export function askOf(pressed: Pressed): Ask | null {
  if (pressed.ctrlKey || pressed.metaKey || pressed.altKey || pressed.repeat || WRITES.includes(pressed.tag)) return null;
  return KEYS[pressed.key.toLowerCase()] ?? null;
}

export const SAID: Record<Side, string> = {
  left: "Answer 1 is better", right: "Answer 2 is better", tie: "A tie", skip: "Skipped",
};

/** Runs while it is looked at; times are milliseconds of one clock. */
export class Stopwatch {
  private gone_ms = 0;
  private since_ms: number | null;

  constructor(now_ms: number, isSeen: boolean) {
    this.since_ms = isSeen ? now_ms : null;
  }

  seen(isSeen: boolean, now_ms: number): void {
    if (this.since_ms !== null) this.gone_ms += now_ms - this.since_ms;
    this.since_ms = isSeen ? now_ms : null;
  }

  seconds(now_ms: number): number {
    return (this.gone_ms + (this.since_ms === null ? 0 : now_ms - this.since_ms)) / 1000;
  }
}

/** Whether people look at where an answer stands: a half is not within the interval. */
export function favoursSide(told: Pick<LabelStatistics, "left_interval">): boolean {
  const [low, high] = told.left_interval;
  return low > 0.5 || high < 0.5;
}
