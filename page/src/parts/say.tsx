// Short sentences about what was just done, in a corner and for screen readers.
import { createContext, type ReactNode, useCallback, useContext, useRef, useState } from "react";
import type { Tone } from "../words";
import css from "./say.module.css";

type Say = (text: string, tone?: Tone) => void;
const Saying = createContext<Say>(() => {});
export const useSay = () => useContext(Saying);
const SHOWN_MS = 6000;

export function Sayings({ children }: { children: ReactNode }) {
  const [said, setSaid] = useState<{ id: number; text: string; tone: Tone }[]>([]);
  const next = useRef(0);
  const say = useCallback<Say>((text, tone = "good") => {
    const id = next.current++;
    setSaid((before) => [...before.slice(-2), { id, text, tone }]);
    setTimeout(() => setSaid((before) => before.filter((each) => each.id !== id)), SHOWN_MS);
  }, []);
  return (
    <Saying value={say}>
      {children}
      <div className={css.corner} role="status" aria-live="polite">
        {said.map((each) => <div key={each.id} className={css.saying} data-tone={each.tone}>{each.text}</div>)}
      </div>
    </Saying>
  );
}
