// Curves of several jobs over each other.
import { useQueries, useQueryClient } from "@tanstack/react-query";
import { useMemo, useState } from "react";
import { Link, useSearchParams } from "react-router";
import { seriesOf, useJobs } from "../api/queries";
import type { Job, SeriesSet } from "../api/types";
import { figure } from "../format";
import { aligned, smoothed } from "../live/series";
import { Chart } from "../parts/Chart";
import { Card, Empty, notYet, parts, StateBadge } from "../parts/parts";
import { useTitle } from "../Shell";
import css from "./Compare.module.css";

const KEYS = [
  ["reward/mean", "Reward"], ["learner/kl", "KL to the reference"], ["rollout/completion_length_mean", "Completion length"], ["driver/step_s", "Step, seconds"],
] as const;
const COLOURS = ["--c1", "--c3", "--c2", "--c5", "--c4", "--c6"];
const MOST = COLOURS.length;

export default function Compare() {
  useTitle("Compare");
  const [search, setSearch] = useSearchParams();
  const chosen = search.getAll("job").slice(0, MOST);
  const [weight, setWeight] = useState(0.6);
  const jobs = useJobs({});
  const rows = (jobs.data?.pages.flatMap((page) => page.items) ?? []).filter((job) => job.step > 0 || chosen.includes(job.job_id));
  const client = useQueryClient();
  const sets = useQueries({ queries: chosen.map((id) => seriesOf(client, id, KEYS.map(([key]) => key), 1000)) });
  const toggle = (id: string) => {
    const next = chosen.includes(id) ? chosen.filter((each) => each !== id) : [...chosen, id];
    setSearch(next.map((each) => ["job", each] as [string, string]), { replace: true });
  };
  const names = chosen.map((id) => rows.find((job) => job.job_id === id)?.name ?? id);
  const nameOf = (id: string) => {
    const name = names[chosen.indexOf(id)] ?? id;
    return names.filter((each) => each === name).length > 1 ? `${name} · ${id.slice(-8)}` : name;
  };
  return (
    <>
      <div className={css.head}>
        <h1>Compare</h1>
        <label className={css.smoothing}>Smoothing
          <select className={parts.input} value={weight} onChange={(event) => setWeight(Number(event.target.value))}>
            {[0, 0.6, 0.9, 0.97].map((each) => <option key={each} value={each}>{each === 0 ? "none" : each}</option>)}
          </select>
        </label>
      </div>
      <div className={css.compare}>
        <Card title={`Jobs, up to ${MOST}`} flush className={css.side}>
          {notYet(jobs) ?? (rows.length === 0 ? <Empty title="No job has made a step yet" /> : (
            <ul className={css.list}>{rows.map((job) => <Choice key={job.job_id} job={job} at={chosen.indexOf(job.job_id)} isFull={chosen.length >= MOST} toggle={toggle} />)}</ul>
          ))}
        </Card>
        {chosen.length === 0 ? <Card><Empty title="Choose jobs to compare">Their curves are drawn over each other, step by step.</Empty></Card> : (
          <div className={css.charts}>
            {KEYS.map(([key, name]) => <Together key={key} metric={key} name={name} ids={chosen} sets={sets.map((each) => each.data)} weight={weight} nameOf={nameOf} />)}
          </div>
        )}
      </div>
    </>
  );
}

function Choice({ job, at, isFull, toggle }: { job: Job; at: number; isFull: boolean; toggle: (id: string) => void }) {
  return (
    <li>
      <label>
        <input type="checkbox" checked={at >= 0} disabled={at < 0 && isFull} onChange={() => toggle(job.job_id)} />
        <i style={{ background: at >= 0 ? `var(${COLOURS[at]})` : "transparent" }} />
        <span>{job.name}<small>{job.step} steps · {job.job_id.slice(-8)}</small></span>
      </label>
      <StateBadge state={job.state} />
    </li>
  );
}

function Together({ metric, name, ids, sets, weight, nameOf }: {
  metric: string; name: string; ids: string[]; sets: (SeriesSet | undefined)[]; weight: number; nameOf: (id: string) => string;
}) {
  const [at, setAt] = useState<number | null>(null);
  const drawn = useMemo(() => {
    const found = ids.map((_, index) => sets[index]?.series.find((each) => each.key === metric));
    const smooth = found.map((each) => ({ steps: each?.steps ?? [], values: smoothed(each?.values ?? [], weight) }));
    const { steps, columns } = aligned(smooth);
    return { steps, lines: ids.map((id, index) => ({ name: nameOf(id), colour: COLOURS[index]!, values: columns[index]! })) };
  }, [ids.join(), sets, metric, weight]);
  return (
    <section className={parts.card} aria-label={name}>
      <div className={css.chartHead}><h2>{name}</h2>{at !== null && <small>step {drawn.steps[at]}</small>}</div>
      <div className={css.chart}>{drawn.steps.length > 0 ? <Chart label={`${name} of ${ids.length} jobs`} steps={drawn.steps} lines={drawn.lines} group="compare" onCursor={setAt} /> : <Empty title="Nothing measured" />}</div>
      <ul className={css.legend}>
        {drawn.lines.map((line, index) => (
          <li key={ids[index]}><i style={{ background: `var(${line.colour})` }} /><Link to={`/jobs/${ids[index]}`}>{line.name}</Link><b>{figure(at === null ? line.values.findLast((value) => value !== null) : line.values[at])}</b></li>
        ))}
      </ul>
    </section>
  );
}
