// One pair after the other, judged blind with five keys. What models wrote is shown as the text it is.
import { type ReactNode, useEffect, useRef, useState } from "react";
import { ApiError } from "../../api/client";
import { useSayOfPair, useTurn, useUndo } from "../../api/labels";
import type { Me, Shown, Turn } from "../../api/types";
import { type Ask, askOf, SAID, Stopwatch } from "../../labelling";
import { Button, Card, classes, Empty, notYet, Note, parts, Progress, sentenceOf } from "../../parts/parts";
import { useSay } from "../../parts/say";
import css from "./label.module.css";
import { useSetContext } from "./Set";

const mayLabel = (me: Me) => me.scopes.some((scope) => scope !== "read");

export default function Judge() {
  const { me } = useSetContext();
  if (mayLabel(me)) return <Turns />;
  return <Empty title="You may look, and not label">Your token has {me.scopes.join(", ")}; an admin makes one with the scope label.</Empty>;
}

function Turns() {
  const { set } = useSetContext();
  const turn = useTurn(set.name);
  const { ask, isBusy, told } = useAsk(set.name, turn.data?.pair ?? null);
  const [areOn, setOn] = useKeys(ask);
  const canUndo = (turn.data?.num_mine ?? 0) > 0;
  return (
    <div className={css.judge}>
      {set.guidelines && (
        <details className={css.guidelines} open={turn.data?.num_mine === 0 || undefined}>
          <summary>Guidelines</summary>
          <p className={css.text}>{set.guidelines}</p>
        </details>
      )}
      <p role="status" className={parts.hidden}>{told}</p>
      {notYet(turn, 8) ?? (turn.data && (
        <>
          <Mine turn={turn.data} />
          {turn.error && <Note tone="bad" action={<Button small onClick={() => void turn.refetch()}>Try again</Button>}>{sentenceOf(turn.error)}</Note>}
          {turn.data.pair ? <Pair pair={turn.data.pair} isBusy={isBusy} /> : <NoneLeft turn={turn.data} />}
          <div className={css.bar} role="group" aria-label="Your judgement">
            {turn.data.pair && (
              <>
                <Choice hint="1" disabled={isBusy} onClick={() => ask("left")}>Answer 1</Choice>
                <Choice hint="0" disabled={isBusy} onClick={() => ask("tie")}>Tie</Choice>
                <Choice hint="2" disabled={isBusy} onClick={() => ask("right")}>Answer 2</Choice>
                <Choice hint="s" plain disabled={isBusy} onClick={() => ask("skip")}>Skip</Choice>
              </>
            )}
            <Choice hint="u" plain disabled={isBusy || !canUndo} onClick={() => ask("undo")}>Undo</Choice>
            <label className={css.keys}><input type="checkbox" checked={areOn} onChange={(event) => setOn(event.target.checked)} />Keys</label>
          </div>
        </>
      ))}
    </div>
  );
}

function Choice({ hint, plain, children, ...rest }: { hint: string; plain?: boolean; disabled: boolean; onClick: () => void; children: ReactNode }) {
  return (
    <Button className={classes(css.choice, plain && css.less)} aria-keyshortcuts={hint} {...rest}>
      <kbd aria-hidden="true">{hint}</kbd>{children}
    </Button>
  );
}

function Mine({ turn }: { turn: Turn }) {
  const { num_mine, num_left } = turn;
  return (
    <div className={css.mine}>
      <span><b>{num_mine.toLocaleString("en")}</b> judged by you, <b>{num_left.toLocaleString("en")}</b> left</span>
      <Progress value={num_mine} max={num_mine + num_left} label="Judged by you" />
    </div>
  );
}

function NoneLeft({ turn }: { turn: Turn }) {
  return (
    <Card>
      {turn.num_elsewhere > 0
        ? <Empty title="Others have the last pairs before them">This page asks again by itself: what they do not judge comes to you.</Empty>
        : <Empty title="That was all">{turn.num_mine > 0 ? "Every pair is judged, or you have judged it. Thank you." : "Every pair of this set is judged already."}</Empty>}
    </Card>
  );
}

function Pair({ pair, isBusy }: { pair: Shown; isBusy: boolean }) {
  const article = useRef<HTMLElement>(null);
  // After long answers the next pair would begin above the window.
  useEffect(() => {
    if ((article.current?.getBoundingClientRect().top ?? 0) < 0) article.current?.scrollIntoView();
  }, [pair.pair_id]);
  return (
    <article ref={article} className={css.pair} aria-label={`Pair ${pair.pair_id}`} aria-busy={isBusy}>
      <Text title="Prompt" className={css.prompt}>{pair.prompt}</Text>
      <div className={css.answers}>
        <Text title="Answer 1" hint="1">{pair.left}</Text>
        <Text title="Answer 2" hint="2">{pair.right}</Text>
      </div>
    </article>
  );
}

function Text({ title, hint, className, children }: { title: string; hint?: string; className?: string; children: string }) {
  return (
    <Card title={title} side={hint && <kbd aria-hidden="true">{hint}</kbd>} className={className} flush>
      <div className={css.text} tabIndex={0} role="region" aria-label={`${title}, text`}>{children || <em>(empty)</em>}</div>
    </Card>
  );
}

/** Says something of the pair, once, or takes the last thing back. `told` is for those who do not see it. */
function useAsk(name: string, pair: Shown | null) {
  const label = useSayOfPair(name);
  const undo = useUndo(name);
  const say = useSay();
  const watch = useStopwatch(pair?.pair_id);
  const [told, setTold] = useState("");
  const isBusy = label.isPending || undo.isPending;
  const refused = (error: unknown) => say(sentenceOf(error), error instanceof ApiError && error.status === 409 ? "warning" : "bad");
  const ask = (what: Ask) => {
    if (isBusy) return;
    if (what === "undo") {
      undo.mutate(undefined, { onSuccess: () => setTold("Undone. The pair before is back."), onError: refused });
    } else if (pair) {
      const said = { pair_id: pair.pair_id, choice: what, taken_s: watch() };
      label.mutate(said, { onSuccess: () => setTold(`${SAID[what]}. Pair ${pair.pair_id} is judged.`), onError: refused });
    }
  };
  return { ask, isBusy, told };
}

/** Seconds for which the pair was in sight. */
function useStopwatch(pairId: string | undefined): () => number {
  const watch = useRef<Stopwatch>(null);
  useEffect(() => {
    const isSeen = () => document.visibilityState === "visible";
    const fresh = (watch.current = new Stopwatch(performance.now(), isSeen()));
    const look = () => fresh.seen(isSeen(), performance.now());
    document.addEventListener("visibilitychange", look);
    return () => document.removeEventListener("visibilitychange", look);
  }, [pairId]);
  return () => watch.current?.seconds(performance.now()) ?? 0;
}

const KEPT = "label-keys";

/** Keys alone are in the way of some who speak to their browser: they can be switched off, and stay off. */
function useKeys(ask: (what: Ask) => void): [boolean, (areOn: boolean) => void] {
  const [areOn, setOn] = useState(() => read() !== "off");
  const newest = useRef(ask);
  newest.current = ask;
  useEffect(() => {
    if (!areOn) return;
    const press = (event: KeyboardEvent) => {
      const box = event.target as HTMLInputElement;
      const what = askOf({ ...pressed(event), tag: box.type === "checkbox" ? "" : box.tagName });
      if (!what) return;
      event.preventDefault();
      newest.current(what);
    };
    window.addEventListener("keydown", press);
    return () => window.removeEventListener("keydown", press);
  }, [areOn]);
  const change = (next: boolean) => {
    setOn(next);
    write(next ? "on" : "off");
  };
  return [areOn, change];
}

const pressed = ({ key, ctrlKey, metaKey, altKey, repeat }: KeyboardEvent) => ({ key, ctrlKey, metaKey, altKey, repeat });

function read(): string | null {
  try {
    return localStorage.getItem(KEPT);
  } catch {
    return null; // storage is forbidden: the choice holds until the tab is closed
  }
}

function write(value: string): void {
  try {
    localStorage.setItem(KEPT, value);
  } catch {
    // As above.
  }
}
