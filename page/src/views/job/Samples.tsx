// What the policy wrote: completions by step, those of one prompt together, with the parts of their rewards.
import { useDeferredValue, useState } from "react";
import { useSearchParams } from "react-router";
import { address } from "../../api/client";
import { useSamples, useSampleSteps } from "../../api/queries";
import type { Sample } from "../../api/types";
import { figure, fixed } from "../../format";
import { grouped, rewardColour } from "../../live/samples";
import { Button, Card, Empty, notYet, parts, Segments } from "../../parts/parts";
import { useJobContext } from "./Job";
import css from "./job.module.css";

type Sort = "newest" | "reward" | "-reward";

export function Samples() {
  const { job } = useJobContext();
  const [search, setSearch] = useSearchParams();
  const [q, setQ] = useState(search.get("q") ?? "");
  const wanted = useDeferredValue(q);
  const value = (name: string) => search.get(name) ?? "";
  const change = (name: string, next: string) =>
    setSearch((before) => {
      const all = new URLSearchParams(before);
      if (next) all.set(name, next);
      else all.delete(name);
      return all;
    }, { replace: true });
  const sort = (search.get("sort") ?? "newest") as Sort;
  const chosen = {
    step: value("step"), kind: value("kind"), min_reward: value("min"), max_reward: value("max"), q: wanted,
    request_id: value("group"),
  };
  const samples = useSamples(job.job_id, { ...chosen, sort });
  const steps = useSampleSteps(job.job_id);
  const kind = value("kind");
  const rows = samples.data?.pages.flatMap((page) => page.items) ?? [];
  const isFiltered = ["step", "kind", "min", "max", "group"].some((name) => value(name) !== "") || wanted !== "";
  return (
    <>
      <div className={css.tools} role="search">
        <Segments label="From" value={(value("kind") || "any") as "any"} options={[["any", "All"], ["step" as "any", "Training"], ["eval" as "any", "Evaluation"]]} onChange={(kind) => change("kind", kind === "any" ? "" : kind)} />
        <label>Step<input className={parts.input} style={{ width: 84 }} type="number" min={0} max={job.num_steps} placeholder="any" list="steps-with-samples" value={value("step")} onChange={(event) => change("step", event.target.value)} /></label>
        <datalist id="steps-with-samples">{steps.data?.filter((each) => !kind || each.kind === kind).map((each) => <option key={`${each.kind}${each.step}`} value={each.step} label={`${each.num_samples} of ${each.kind === "eval" ? "an evaluation" : "training"}`} />)}</datalist>
        <label>Reward<input className={parts.input} style={{ width: 78 }} type="number" step="any" placeholder="from" aria-label="Least reward" value={value("min")} onChange={(event) => change("min", event.target.value)} /></label>
        <label>to<input className={parts.input} style={{ width: 78 }} type="number" step="any" placeholder="to" aria-label="Greatest reward" value={value("max")} onChange={(event) => change("max", event.target.value)} /></label>
        <input className={parts.input} style={{ width: 220 }} type="search" placeholder="Words in prompt or completion" aria-label="Search samples" value={q} onChange={(event) => { setQ(event.target.value); change("q", event.target.value); }} />
        <label className={css.spring}>Sort
          <select className={parts.input} value={sort} onChange={(event) => change("sort", event.target.value === "newest" ? "" : event.target.value)}>
            <option value="newest">newest first</option><option value="-reward">best first</option><option value="reward">worst first</option>
          </select>
        </label>
        <a className={`${parts.button} ${parts.small}`} href={address(`/jobs/${job.job_id}/samples.jsonl`, chosen)} download>Save</a>
      </div>
      {notYet(samples, 8) ?? (rows.length === 0 ? (
        <Card>
          {isFiltered
            ? <Empty title="No completion matches" action={<Button onClick={() => { setQ(""); setSearch({}, { replace: true }); }}>Show all</Button>}>A part of every step is kept here; the job's directory has them all.</Empty>
            : <Empty title="No completions yet">They come with the first step, and with the evaluation before it.</Empty>}
        </Card>
      ) : (
        <div className={css.stack}>
          {grouped(rows, sort === "newest").map((group) => <Group key={group[0]!.sample_id} group={group} all={rows} find={wanted} onGroup={(id) => change("group", id)} isAlone={value("group") !== ""} />)}
          {samples.hasNextPage && <Button disabled={samples.isFetchingNextPage} onClick={() => void samples.fetchNextPage()}>Show more</Button>}
        </div>
      ))}
    </>
  );
}

function Group({ group, all, find, onGroup, isAlone }: {
  group: Sample[]; all: Sample[]; find: string; onGroup: (requestId: string) => void; isAlone: boolean;
}) {
  const first = group[0]!;
  const rewards = group.flatMap((sample) => (sample.reward === null ? [] : [sample.reward]));
  const mean = rewards.length ? rewards.reduce((sum, each) => sum + each, 0) / rewards.length : null;
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
      <div className={css.prompt} tabIndex={0} aria-label="Prompt"><div><Marked text={first.prompt} find={find} /></div></div>
      {group.map((sample) => <Completion key={sample.sample_id} sample={sample} all={all} find={find} />)}
    </article>
  );
}

const LONG = 420;
const TOLD: readonly (readonly [column: string, name: string])[] = [
  ["advantage_mean", "advantage"], ["finish_reason", "ended by"], ["version_oldest", "weight version"], ["worker_id", "worker"], ["invalid", "invalid"],
];

function Completion({ sample, all, find }: { sample: Sample; all: Sample[]; find: string }) {
  const [isOpen, setOpen] = useState(false);
  const isLong = sample.completion.length > LONG || sample.completion.split("\n").length > 5;
  return (
    <div className={css.completion}>
      <div><span className={css.reward} style={{ background: rewardColour(sample.reward, all) }} title="Reward">{fixed(sample.reward, 3)}</span></div>
      <div>
        <p className={`${css.text} ${isLong && !isOpen ? css.clamped : ""}`}>
          {sample.completion ? <Marked text={sample.completion} find={find} /> : <span className={parts.hint}>(empty)</span>}
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
