// The time, for views that say how long ago something was; it moves once a second.
import { useSyncExternalStore } from "react";

let now_s = Math.floor(Date.now() / 1000);
const listeners = new Set<() => void>();

function tick(): void {
  now_s = Math.floor(Date.now() / 1000);
  for (const listener of listeners) listener();
}

let timer: ReturnType<typeof setInterval> | undefined;

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  if (listeners.size === 1) {
    tick();
    timer = setInterval(tick, 1000);
  }
  return () => {
    listeners.delete(listener);
    if (listeners.size === 0) clearInterval(timer);
  };
}

export const useNow = () => useSyncExternalStore(subscribe, () => now_s);
