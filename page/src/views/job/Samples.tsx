// What the policy wrote: completions by step, those of one prompt together, with the parts of their rewards.
import { useDeferredValue, useState } from "react";
import { useSearchParams } from "react-router";
import { address } from "../../api/client";
import { useFirstAnswers, useSamples, useSampleSteps } from "../../api/queries";
import type { SampleStep } from "../../api/types";
import { grouped } from "../../live/samples";
import { Button, Card, Empty, notYet, parts, Segments } from "../../parts/parts";
import { useJobContext } from "./Job";
import css from "./job.module.css";
import { type Against, Group } from "./SampleGroup";

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
  const against = (value("diff") || "nothing") as Against;
  const firstAnswers = useFirstAnswers(job.job_id, against === "reference");
  const rows = samples.data?.pages.flatMap((page) => page.items) ?? [];
  const isFiltered = ["step", "kind", "min", "max", "group"].some((name) => value(name) !== "") || wanted !== "";
  return (
    <>
      <div className={css.tools} role="search">
        <Segments label="From" value={(value("kind") || "any") as "any"} options={[["any", "All"], ["step" as "any", "Training"], ["eval" as "any", "Evaluation"]]} onChange={(kind) => change("kind", kind === "any" ? "" : kind)} />
        <Steps steps={(steps.data ?? []).filter((each) => !kind || each.kind === kind)} step={value("step")} onChange={(step) => change("step", step)} />
        <label>Reward<input className={parts.input} style={{ width: 68 }} type="number" step="any" placeholder="from" aria-label="Least reward" value={value("min")} onChange={(event) => change("min", event.target.value)} /></label>
        <label>to<input className={parts.input} style={{ width: 68 }} type="number" step="any" placeholder="to" aria-label="Greatest reward" value={value("max")} onChange={(event) => change("max", event.target.value)} /></label>
        <input className={parts.input} style={{ width: 190 }} type="search" placeholder="Words in prompt or completion" aria-label="Search samples" value={q} onChange={(event) => { setQ(event.target.value); change("q", event.target.value); }} />
        <label>Differences from
          <select className={parts.input} value={against} onChange={(event) => change("diff", event.target.value === "nothing" ? "" : event.target.value)}>
            <option value="nothing">nothing</option><option value="best">the best sibling</option><option value="reference">the reference</option>
          </select>
        </label>
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
          {grouped(rows, sort === "newest").map((group) => <Group key={group[0]!.sample_id} group={group} all={rows} find={wanted} against={against} reference={firstAnswers.data?.get(group[0]!.prompt)} onGroup={(id) => change("group", id)} isAlone={value("group") !== ""} />)}
          {samples.hasNextPage && <Button disabled={samples.isFetchingNextPage} onClick={() => void samples.fetchNextPage()}>Show more</Button>}
        </div>
      ))}
    </>
  );
}

/** One step after the other: those that have completions, newest first. */
function Steps({ steps, step, onChange }: { steps: SampleStep[]; step: string; onChange: (step: string) => void }) {
  const known = [...new Set(steps.map((each) => each.step))];
  const at = known.indexOf(Number(step));
  const isChosen = step !== "" && at >= 0;
  const go = (to: number) => onChange(String(known[to] ?? ""));
  return (
    <span className={css.stepChoice} role="group" aria-label="Step">
      <button type="button" aria-label="An older step" disabled={isChosen ? at >= known.length - 1 : known.length === 0} onClick={() => go(isChosen ? at + 1 : 0)}>‹</button>
      <select aria-label="Step" value={step} onChange={(event) => onChange(event.target.value)}>
        <option value="">any step</option>
        {step !== "" && !isChosen && <option value={step}>step {step}</option>}
        {known.map((each) => <option key={each} value={each}>step {each}</option>)}
      </select>
      <button type="button" aria-label="A newer step" disabled={!isChosen || at <= 0} onClick={() => go(at - 1)}>›</button>
    </span>
  );
}
