// One event stream per tab. It comes back by itself, after the last event it has seen, however long the service is away.
export type Status = "connecting" | "live" | "away";

export interface Source {
  readyState: number;
  onopen: (() => void) | null;
  onerror: (() => void) | null;
  addEventListener(type: string, listener: (event: { data: string; lastEventId: string }) => void): void;
  close(): void;
}

export interface Wiring {
  /** The address, with `after` where something was seen before. */
  url: (after: string | null) => string;
  open: (url: string) => Source;
  onMessage: (topic: string, data: unknown) => void;
  onStatus: (status: Status) => void;
  later: (action: () => void, delay_ms: number) => () => void;
}

export const TOPICS = ["jobs", "metrics", "workers", "logs", "view", "resync"] as const;
const CLOSED = 2;

/** Waits between attempts: soon at first, then every ten seconds. */
export function delay_ms(failures: number): number {
  return Math.min(10_000, 500 * 2 ** failures);
}

export class Stream {
  private source: Source | null = null;
  private after: string | null = null;
  private failures = 0;
  private isOver = false;
  private cancel = () => {};

  constructor(private readonly wiring: Wiring) {}

  start(): void {
    const source = this.wiring.open(this.wiring.url(this.after));
    this.source = source;
    source.onopen = () => {
      this.failures = 0;
      this.wiring.onStatus("live");
    };
    source.onerror = () => this.failed(source);
    for (const topic of TOPICS) {
      source.addEventListener(topic, (event) => {
        if (event.lastEventId) this.after = event.lastEventId;
        this.wiring.onMessage(topic, event.data ? JSON.parse(event.data) : {});
      });
    }
  }

  stop(): void {
    this.isOver = true;
    this.cancel();
    this.source?.close();
  }

  /** A browser tries again after a broken connection, but never after an answer that is no stream. */
  private failed(source: Source): void {
    if (this.isOver) return;
    this.wiring.onStatus("away");
    if (source.readyState !== CLOSED) return;
    source.close();
    this.cancel = this.wiring.later(() => this.start(), delay_ms(this.failures));
    this.failures += 1;
  }
}
