// The completions of one prompt under each other, with the parts of their rewards and how they differ.
import { useMemo, useState } from "react";
import type { Sample } from "../../api/types";
import { figure, fixed } from "../../format";
import { difference } from "../../live/diff";
import { bestOf, rewardColour } from "../../live/samples";
import { parts } from "../../parts/parts";
import css from "./job.module.css";

/** With what a completion is compared. */
export type Against = "nothing" | "best" | "reference";

export function Group({ group, all, find, against, reference, onGroup, isAlone }: {
  group: Sample[]; all: Sample[]; find: string; against: Against; reference: Sample | undefined;
  onGroup: (requestId: string) => void; isAlone: boolean;
}) {
  const first = group[0]!;
  const rewards = group.flatMap((sample) => (sample.reward === null ? [] : [sample.reward]));
  const mean = rewards.length ? rewards.reduce((sum, each) => sum + each, 0) / rewards.length : null;
  const base = against === "reference" ? reference : against === "best" ? bestOf(group) : undefined;
  return (
    <article className={css.group} aria-label={`Prompt ${first.prompt_id} at step ${first.step}`}>
      <header className={css.groupHead}>
        <span>{first.kind === "eval" ? "Evaluation at" : "Step"} <b>{first.step}</b></span>
        <code>{first.prompt_id}</code>
        <span>{group.length} {group.length === 1 ? "completion" : "completions"}, mean reward <b>{fixed(mean, 3)}</b></span>
        <span className={css.spring}>
          <button type="button" className={css.unfold} onClick={() => onGroup(isAlone ? "" : String(first.request_id))}>{isAlone ? "All prompts" : "Only this prompt"}</button>
        </span>
      </header>
      <div className={css.prompt} tabIndex={0} role="region" aria-label="Prompt"><div><Marked text={first.prompt} find={find} /></div></div>
      {against === "reference" && (base && base.step !== first.step
        ? <Completion sample={base} all={all} find={find} note="the reference, before the first step" />
        : !base && <p className={css.aside}>The reference was not asked this prompt. It answers those of the evaluation before the first step: choose “Evaluation”.</p>)}
      {group.map((sample) => <Completion key={sample.sample_id} sample={sample} all={all} find={find} base={sample === base ? undefined : base} note={against === "best" && sample === base ? "the best of its siblings" : undefined} />)}
    </article>
  );
}

const LONG = 420;
const TOLD: readonly (readonly [column: string, name: string])[] = [
  ["advantage_mean", "advantage"], ["finish_reason", "ended by"], ["version_oldest", "weight version"], ["worker_id", "worker"], ["invalid", "invalid"],
];

function Completion({ sample, all, find, base, note }: {
  sample: Sample; all: Sample[]; find: string; base?: Sample; note?: string;
}) {
  const [isOpen, setOpen] = useState(false);
  const isLong = sample.completion.length > LONG || sample.completion.split("\n").length > 5;
  return (
    <div className={css.completion}>
      <div><span className={css.reward} style={{ background: rewardColour(sample.reward, all) }} title="Reward">{fixed(sample.reward, 3)}</span></div>
      <div>
        {note && <p className={css.badge}>{note}</p>}
        <p className={`${css.text} ${isLong && !isOpen ? css.clamped : ""}`}>
          {!sample.completion ? <span className={parts.hint}>(empty)</span>
            : base ? <Different before={base.completion} after={sample.completion} /> : <Marked text={sample.completion} find={find} />}
        </p>
        {isLong && <button type="button" className={css.unfold} aria-expanded={isOpen} onClick={() => setOpen(!isOpen)}>{isOpen ? "Show less" : "Show all"}</button>}
        <dl className={css.partsOf}>
          {Object.entries(sample.breakdown).map(([name, part]) => <div key={name}><dt>{name}</dt><dd>{fixed(part, 3)}</dd></div>)}
          <div><dt>tokens</dt><dd>{sample.num_tokens}</dd></div>
          {TOLD.map(([column, name]) => {
            const value = sample.body[column];
            if (value === null || value === undefined || value === "") return null;
            return <div key={name} className={name === "invalid" ? css.invalid : undefined}><dt>{name}</dt><dd>{typeof value === "number" ? figure(value, 3) : String(value)}</dd></div>;
          })}
        </dl>
      </div>
    </div>
  );
}

function Different({ before, after }: { before: string; after: string }) {
  const pieces = useMemo(() => difference(before, after), [before, after]);
  if (!pieces) return after;
  return pieces.map((piece, index) =>
    piece.kind === "same" ? piece.text : piece.kind === "new" ? <ins key={index}>{piece.text}</ins> : <del key={index}>{piece.text}</del>,
  );
}

function Marked({ text, find }: { text: string; find: string }) {
  const word = find.trim();
  if (!word) return text;
  const pieces: React.ReactNode[] = [];
  const where = text.toLowerCase();
  let from = 0;
  for (let at = where.indexOf(word.toLowerCase()); at >= 0; at = where.indexOf(word.toLowerCase(), from)) {
    pieces.push(text.slice(from, at), <mark key={at}>{text.slice(at, at + word.length)}</mark>);
    from = at + word.length;
  }
  return <>{pieces}{text.slice(from)}</>;
}
