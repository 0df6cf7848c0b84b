// All jobs, newest first.
import { useDeferredValue, useState } from "react";
import { Link, useSearchParams } from "react-router";
import { useJobs, useSpark } from "../api/queries";
import type { Job } from "../api/types";
import { ago, duration, fixed, moment } from "../format";
import { Button, Card, classes, Empty, notYet, parts, Progress, Scroll, Segments, Sparkline, StateBadge } from "../parts/parts";
import { useNow } from "../parts/now";
import { useTitle } from "../Shell";
import { isOver, JOB_TONES } from "../words";
import css from "./views.module.css";

const FILTERS = {
  all: undefined,
  active: ["queued", "launching", "running", "paused", "stopping"],
  succeeded: ["succeeded"],
  failed: ["failed"],
  cancelled: ["cancelled"],
};
type Filter = keyof typeof FILTERS;

export function Jobs() {
  useTitle("Jobs");
  const [search, setSearch] = useSearchParams();
  const filter = (search.get("state") ?? "all") as Filter;
  const [q, setQ] = useState(search.get("q") ?? "");
  const wanted = useDeferredValue(q);
  const jobs = useJobs({ state: FILTERS[filter], q: wanted || undefined });
  const rows = jobs.data?.pages.flatMap((page) => page.items) ?? [];
  const change = (name: string, value: string) =>
    setSearch((before) => {
      const next = new URLSearchParams(before);
      if (value && value !== "all") next.set(name, value);
      else next.delete(name);
      return next;
    }, { replace: true });
  return (
    <>
      <div className={css.head}>
        <h1>Jobs</h1>
        <div className={css.tools} role="search">
          <input
            className={classes(parts.input, css.search)} type="search" placeholder="Part of a name, id or message" aria-label="Search jobs"
            value={q} onChange={(event) => { setQ(event.target.value); change("q", event.target.value); }}
          />
          <Segments
            label="State" value={filter} onChange={(value) => change("state", value)}
            options={[["all", "All"], ["active", "Active"], ["succeeded", "Succeeded"], ["failed", "Failed"], ["cancelled", "Cancelled"]]}
          />
        </div>
      </div>
      <Card flush>
        {notYet(jobs, 6) ?? (rows.length === 0 ? (
          <Nothing isFiltered={filter !== "all" || wanted !== ""} clear={() => { setQ(""); setSearch({}, { replace: true }); }} />
        ) : (
          <Scroll label="Jobs">
            <table className={classes(parts.table, css.jobs)}>
              <caption className={parts.hidden}>Jobs, newest first</caption>
              <thead>
                <tr>
                  <th scope="col">Job</th><th scope="col">State</th><th scope="col">Progress</th>
                  <th scope="col" className={parts.num}>Reward</th><th scope="col" className={parts.num}>Time</th>
                  <th scope="col">Owner</th><th scope="col" className={parts.num}>Submitted</th>
                </tr>
              </thead>
              <tbody>{rows.map((job) => <Row key={job.job_id} job={job} />)}</tbody>
            </table>
          </Scroll>
        ))}
        {jobs.hasNextPage && (
          <div className={css.more}>
            <Button small disabled={jobs.isFetchingNextPage} onClick={() => void jobs.fetchNextPage()}>Show older jobs</Button>
          </div>
        )}
      </Card>
    </>
  );
}

function Row({ job }: { job: Job }) {
  const now_s = useNow();
  const spark = useSpark(job);
  const values = spark.data?.series[0]?.values ?? [];
  const last = values.findLast((value) => value !== null);
  const took_s = job.started_s === null ? null : (job.ended_s ?? now_s) - job.started_s;
  return (
    <tr>
      <td>
        <Link to={`/jobs/${job.job_id}`} className={css.jobName}>
          {job.name}
          {Object.entries(job.labels).slice(0, 3).map(([key, value]) => <span key={key} className={css.label}>{value ? `${key}: ${value}` : key}</span>)}
        </Link>
        <span className={classes(css.jobSub, job.state === "failed" && css.bad)} title={job.message || job.job_id}>{job.message || job.job_id}</span>
      </td>
      <td><StateBadge state={job.state} /></td>
      <td className={css.progressCell}>
        <div className={css.steps}><span>{job.step.toLocaleString("en")} / {job.num_steps.toLocaleString("en")}{job.unit === "prompts" && " prompts"}</span><span>{Math.floor((100 * job.step) / Math.max(1, job.num_steps))} %</span></div>
        <Progress value={job.step} max={job.num_steps} tone={isOver(job) ? JOB_TONES[job.state] : "active"} label={`Steps of ${job.name}`} />
      </td>
      <td className={parts.num}>
        <span className={css.reward}>
          <Sparkline values={values} width={96} label={`Reward of ${job.name}, last ${fixed(last, 3)}`} />
          <b>{fixed(last, 3)}</b>
        </span>
      </td>
      <td className={parts.num}>{took_s === null ? "–" : duration(took_s)}</td>
      <td>{job.owner}</td>
      <td className={parts.num}><time dateTime={new Date(job.created_s * 1000).toISOString()} title={moment(job.created_s)}>{ago(job.created_s, now_s)}</time></td>
    </tr>
  );
}

function Nothing({ isFiltered, clear }: { isFiltered: boolean; clear: () => void }) {
  if (isFiltered)
    return <Empty title="No job matches" action={<Button onClick={clear}>Show all jobs</Button>}>Try another state, or another part of a name, an id, the notes or the message.</Empty>;
  return (
    <Empty title="No jobs yet" action={<Link className={classes(parts.button, parts.primary)} to="/jobs/new">Submit the first job</Link>}>
      Start from a recipe here, or on the command line with <code>rlhf submit word-world</code>: it takes seconds on a laptop.
    </Empty>
  );
}
