// The job's curves, growing as it runs. Charts share a cursor; dragging over one zooms it, a double click zooms out.
import { useMemo, useState } from "react";
import { useSearchParams } from "react-router";
import { useLatest, useSeries } from "../../api/queries";
import type { Series } from "../../api/types";
import { figure } from "../../format";
import { smoothed } from "../../live/series";
import { Chart } from "../../parts/Chart";
import { Card, Empty, notYet, parts, Segments } from "../../parts/parts";
import { isOver } from "../../words";
import { useJobContext } from "./Job";
import css from "./job.module.css";

interface Main {
  name: string;
  unit?: string;
  isWhole?: boolean;
}
const MAIN: Record<string, Main> = {
  "reward/mean": { name: "Reward" },
  "learner/kl": { name: "KL to the reference", unit: "nats" },
  "learner/entropy": { name: "Entropy", unit: "nats" },
  "rollout/completion_length_mean": { name: "Completion length", unit: "tokens" },
  "learner/clip_fraction": { name: "Clip fraction" },
  "driver/staleness_max": { name: "Staleness, greatest", unit: "versions", isWhole: true },
  "rollout/tokens_per_s": { name: "Rollout", unit: "tokens/s" },
  "learner/tokens_per_s": { name: "Learner", unit: "tokens/s" },
};
const COLOURS: Record<string, string> = {
  reward: "--c1", eval: "--c1", learner: "--c4", rollout: "--c2", driver: "--c3", weights: "--c5", reference: "--c6",
};
/** Keys of one request. */
const MOST = 100;
const SMOOTHING = [0, 0.6, 0.9, 0.97];

export default function Charts() {
  const { job } = useJobContext();
  const [search, setSearch] = useSearchParams();
  const which = search.get("show") === "all" ? "all" : "main";
  const [weight, setWeight] = useState(0);
  const [find, setFind] = useState("");
  const latest = useLatest(job.job_id);
  const known = latest.data ? Object.keys(latest.data.values).sort() : null;
  const shown = useMemo(() => {
    if (known === null) return [];
    const all = which === "all" ? known : Object.keys(MAIN).filter((key) => known.includes(key));
    return all.filter((key) => key.includes(find.trim())).slice(0, MOST);
  }, [known?.join(), which, find]);
  const series = useSeries(job.job_id, shown);
  const byKey = new Map(series.data?.series.map((each) => [each.key, each]));
  if (latest.data && known?.length === 0) {
    return <Card><Empty title="No curves yet">{isOver(job) ? "The job ended before its first step." : "They begin with the first step."}</Empty></Card>;
  }
  return (
    <>
      <div className={css.tools}>
        <Segments
          label="Which charts" value={which} options={[["main", "Main"], ["all", `All${known ? ` ${known.length}` : ""}`]]}
          onChange={(value) => setSearch(value === "all" ? { show: "all" } : {}, { replace: true })}
        />
        {which === "all" && <input className={parts.input} type="search" placeholder="Part of a name" aria-label="Search metrics" value={find} onChange={(event) => setFind(event.target.value)} />}
        <span className={`${css.spring} ${parts.hint} ${css.wideOnly}`}>by step · drag to zoom in, double-click to zoom out</span>
        <label>
          Smoothing
          <select className={parts.input} value={weight} onChange={(event) => setWeight(Number(event.target.value))}>
            {SMOOTHING.map((each) => <option key={each} value={each}>{each === 0 ? "none" : each}</option>)}
          </select>
        </label>
      </div>
      {notYet(latest) ?? (shown.length > 0 ? notYet(series) : null) ?? (
        <div className={css.charts}>
          {shown.map((key) => <Curve key={key} name={key} series={byKey.get(key)} weight={weight} group={job.job_id} />)}
          {shown.length === 0 && <Card><Empty title="No metric has such a name" /></Card>}
        </div>
      )}
    </>
  );
}

function Curve({ name, series, weight, group }: { name: string; series: Series | undefined; weight: number; group: string }) {
  const [at, setAt] = useState<number | null>(null);
  const main = MAIN[name];
  const title = main?.name ?? name;
  const colour = COLOURS[name.split("/")[0]!] ?? "--c1";
  const drawn = useMemo(() => {
    if (!series) return null;
    const line = { name, colour, values: smoothed(series.values, weight), isStepped: main?.isWhole && weight === 0 };
    const raw = { name: `${name} as measured`, colour, values: series.values, isFaint: true };
    const band = series.lows && series.highs ? { lows: series.lows, highs: series.highs, colour } : undefined;
    return { lines: weight > 0 ? [raw, line] : [line], band: weight > 0 ? undefined : band, values: line.values };
  }, [series, weight, name, colour, main]);
  const last = series ? series.values.findLastIndex((value) => value !== null) : -1;
  const index = at ?? last;
  return (
    <section className={parts.card} aria-label={title}>
      <div className={css.chartHead}>
        <h2 title={name}>{title}</h2>
        {at !== null && series && <small>step {series.steps[at]}</small>}
        <output>{drawn && index >= 0 ? <>{figure(drawn.values[index])}{main?.unit && <small> {main.unit}</small>}</> : "–"}</output>
      </div>
      <div className={css.chart}>
        {drawn && series!.steps.length > 0
          ? <Chart label={`${title} over ${series!.steps.length} steps, ${figure(drawn.values[last])}${main?.unit ? ` ${main.unit}` : ""} at the end`} steps={series!.steps} lines={drawn.lines} band={drawn.band} group={group} onCursor={setAt} />
          : <Empty title="Nothing measured yet" />}
      </div>
    </section>
  );
}
