// How often the page asks again: soon for the first piece of news, then every other second at most, never in a tab that
// nobody sees, and not all tabs at once. Time and chance are given, so that tests need not wait.
import type { Key } from "./effects";

export interface Clock {
  now_ms: () => number;
  later: (action: () => void, delay_ms: number) => () => void;
  /** From 0 to 1. */
  chance: () => number;
}

const SOON_MS = 150;
export const EVERY_MS = 2000;
/** Lists cost the service more than one job does, and nobody reads them that fast. */
const SLOW: Record<string, number> = { job: 4000, jobs: 4000, samples: 10_000, spark: 10_000, components: 10_000 };
const JITTER = 0.25;

export class Pace {
  private readonly done_ms = new Map<string, number>();
  private readonly waiting = new Map<string, () => void>();
  private readonly missed = new Map<string, Key>();
  private isSeen = true;

  constructor(private readonly clock: Clock, private readonly ask: (key: Key) => void) {}

  want(key: Key): void {
    const name = key.join(" ");
    if (!this.isSeen) return void this.missed.set(name, key);
    if (this.waiting.has(name)) return;
    const every_ms = SLOW[key[0] ?? ""] ?? EVERY_MS;
    const since_ms = this.clock.now_ms() - (this.done_ms.get(name) ?? -Infinity);
    const wait_ms = Math.max(SOON_MS, every_ms - since_ms) * (1 + JITTER * this.clock.chance());
    this.waiting.set(name, this.clock.later(() => this.due(name, key), wait_ms));
  }

  /** A hidden tab asks for nothing; what it missed is asked for once when it is seen again. */
  seen(isSeen: boolean): void {
    this.isSeen = isSeen;
    if (!isSeen) return;
    const missed = [...this.missed.values()];
    this.missed.clear();
    for (const key of missed) this.want(key);
  }

  stop(): void {
    for (const cancel of this.waiting.values()) cancel();
    this.waiting.clear();
  }

  private due(name: string, key: Key): void {
    this.waiting.delete(name);
    if (!this.isSeen) return void this.missed.set(name, key);
    this.done_ms.set(name, this.clock.now_ms());
    this.ask(key);
  }
}
