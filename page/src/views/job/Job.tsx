// One job: what it is, what can be asked of it, and its tabs.
import { useEffect, useRef, useState } from "react";
import { Link, NavLink, Outlet, useLocation, useNavigate, useOutletContext, useParams } from "react-router";
import { ApiError, newKey } from "../../api/client";
import { useJob, useLatest, usePools, useVerb, type Verb } from "../../api/queries";
import type { Job, JobDetail, Me } from "../../api/types";
import { ago, duration, moment } from "../../format";
import { Button, Confirm, Empty, ErrorNote, Note, notYet, Progress, sentenceOf, StateBadge } from "../../parts/parts";
import { useNow } from "../../parts/now";
import { useSay } from "../../parts/say";
import { useTitle } from "../../Shell";
import { capital, eta_s, health, isOver, JOB_TONES } from "../../words";
import css from "./job.module.css";

const TABS = [
  ["", "Overview"], ["charts", "Charts"], ["workers", "Workers"], ["samples", "Samples"], ["logs", "Logs"],
  ["timeline", "Timeline"], ["checkpoints", "Checkpoints"], ["config", "Config"],
] as const;

export interface JobContext {
  job: JobDetail;
  /** Whether one may ask something of it. */
  mayRun: boolean;
}
export const useJobContext = () => useOutletContext<JobContext>();

export function JobView({ me }: { me: Me }) {
  const id = useParams().id!;
  const job = useJob(id);
  useTitle(job.data ? job.data.name : "Job");
  if (!job.data && job.error instanceof ApiError && job.error.status === 404) {
    return <Empty title="There is no such job" action={<Link to="/jobs">All jobs</Link>}>It may have been removed, or the address is mistyped.</Empty>;
  }
  if (!job.data) return notYet(job, 6);
  const mayRun = me.scopes.some((scope) => scope === "submit" || scope === "admin");
  return (
    <>
      <Head job={job.data} mayRun={mayRun} />
      {job.error && <div className={css.stale}><ErrorNote error={job.error} retry={() => void job.refetch()} /></div>}
      <Tabs />
      <Outlet context={{ job: job.data, mayRun } satisfies JobContext} />
    </>
  );
}

function Tabs() {
  const { pathname } = useLocation();
  const bar = useRef<HTMLElement>(null);
  // On a narrow screen the one that is shown may be out of sight.
  useEffect(() => {
    const here = bar.current?.querySelector<HTMLElement>("[aria-current=page]");
    if (here) bar.current?.scrollTo({ left: here.offsetLeft + here.offsetWidth / 2 - bar.current.clientWidth / 2 });
  }, [pathname]);
  return (
    <nav ref={bar} aria-label="Parts of the job" className={css.tabs}>
      {TABS.map(([path, name]) => <NavLink key={name} to={path} end={path === ""}>{name}</NavLink>)}
    </nav>
  );
}

function Head({ job, mayRun }: { job: JobDetail; mayRun: boolean }) {
  const now_s = useNow();
  const pools = usePools(job.job_id);
  const latest = useLatest(job.job_id);
  const told = health(job, pools.data ?? [], now_s);
  const left_s = eta_s(job, latest.data?.values["driver/step_s"]);
  const over = isOver(job);
  const unit = job.unit === "prompts" ? "Prompts" : "Step";
  return (
    <div className={css.head}>
      <p className={css.crumbs}><Link to="/jobs">Jobs</Link><span aria-hidden="true">/</span><code title="The job's id">{job.job_id}</code></p>
      <div className={css.title}>
        <h1>{job.name}</h1>
        <StateBadge state={job.state} />
        {Object.entries(job.labels).map(([key, value]) => <span key={key} className={css.label}>{value ? `${key}: ${value}` : key}</span>)}
        {mayRun && <Actions job={job} />}
      </div>
      <div className={css.progress}>
        <Progress value={job.step} max={job.num_steps} tone={over ? JOB_TONES[job.state] : "active"} label={unit} />
        <dl className={css.facts}>
          <div><dt>{unit}</dt><dd>{job.step.toLocaleString("en")} of {job.num_steps.toLocaleString("en")}</dd></div>
          {job.started_s !== null && <div><dt>{over ? "Took" : "Running for"}</dt><dd>{duration((job.ended_s ?? now_s) - job.started_s)}</dd></div>}
          {left_s !== null && left_s > 0 && <div><dt>About</dt><dd>{duration(left_s)} left</dd></div>}
          <div><dt>Attempt</dt><dd>{Math.max(1, job.num_attempts)} ({job.max_attempts} may fail)</dd></div>
          <div><dt>Owner</dt><dd>{job.owner}</dd></div>
          <div><dt>Submitted</dt><dd title={moment(job.created_s)}>{ago(job.created_s, now_s)}</dd></div>
          {!over && job.seen_s !== null && <div><dt>Heard from</dt><dd>{ago(job.seen_s, now_s)}</dd></div>}
        </dl>
      </div>
      {told.tone === "bad" && told.detail && (
        <Note tone={told.tone}><b>{told.headline}.</b> {told.detail}</Note>
      )}
    </div>
  );
}

const MEANT: Partial<Record<Verb, [title: string, text: string, action: string]>> = {
  cancel: ["Cancel this job?", "It ends after the step under way, with a checkpoint. It can be retried from there.", "Cancel the job"],
  kill: ["Kill this job?", "It ends at once. What was done since its last checkpoint is lost.", "Kill the job"],
};
const DONE: Record<Verb, string> = {
  cancel: "The job was asked to end after the step under way.", kill: "The job is being killed.",
  pause: "The job was asked to pause.", resume: "The job was asked to go on.",
  checkpoint: "A checkpoint is written after the step under way.", retry: "Another attempt will start from the last checkpoint.",
  clone: "A copy of the job was submitted.",
};

function verbsOf(job: Job): Verb[] {
  switch (job.state) {
    case "queued": case "launching": return ["cancel", "kill", "clone"];
    case "running": return ["pause", "checkpoint", "clone", "cancel", "kill"];
    case "paused": return ["resume", "checkpoint", "clone", "cancel", "kill"];
    case "stopping": return ["kill"];
    case "succeeded": return ["clone"];
    default: return ["retry", "clone"];
  }
}

function Actions({ job }: { job: JobDetail }) {
  const verb = useVerb(job.job_id);
  const say = useSay();
  const go = useNavigate();
  const [asked, setAsked] = useState<Verb | null>(null);
  const act = (which: Verb) =>
    verb.mutate({ verb: which, key: newKey() }, {
      onSuccess: (answer) => {
        say(DONE[which]);
        if (which === "clone" && answer && "num_steps" in answer) void go(`/jobs/${answer.job_id}`);
      },
      onError: (error) => say(sentenceOf(error), "bad"),
    });
  const begin = (which: Verb) => (MEANT[which] ? setAsked(which) : act(which));
  const meant = asked && MEANT[asked];
  return (
    <div className={css.actions} role="group" aria-label="Ask of the job">
      {verbsOf(job).map((each) => (
        <Button
          key={each} small disabled={verb.isPending} onClick={() => begin(each)}
          kind={each === "kill" || each === "cancel" ? "danger" : each === "resume" || each === "retry" ? "primary" : undefined}
        >
          {capital(each)}
        </Button>
      ))}
      {asked && meant && (
        <Confirm
          title={meant[0]} action={meant[2]} danger
          onClose={(isMeant) => { setAsked(null); if (isMeant) act(asked); }}
        >
          {meant[1]}
        </Confirm>
      )}
    </div>
  );
}
