// How the job fares: its newest figures, where its time goes, its pools, and what happened lately.
import { Link } from "react-router";
import { useAttempts, useEvents, useLatest, usePools, useSeries } from "../../api/queries";
import type { Figure, Pool } from "../../api/types";
import { clock, figure, fixed, percent } from "../../format";
import { roleShares, timeSplit } from "../../live/split";
import { Badge, Card, Dot, Empty, notYet, parts, Scroll, Sparkline } from "../../parts/parts";
import { useNow } from "../../parts/now";
import { advice, capital, eventTone, health, inWords, isOver, NOTABLE, poolStory, type Tone } from "../../words";
import { useJobContext } from "./Job";
import css from "./job.module.css";
import { WorkerCells } from "./WorkerCells";

const TILES = [
  ["reward/mean", "Reward", ""],
  ["eval/reward_mean", "Held-out reward", ""],
  ["learner/kl", "KL to the reference", ""],
  ["rollout/completion_length_mean", "Completion length", "tokens"],
  ["rollout/tokens_per_s", "Rollout", "tokens/s"],
  ["driver/step_s", "Step", "s"],
  ["learner/entropy", "Entropy", "nats"],
  ["learner/tokens_per_s", "Learner", "tokens/s"],
] as const;
/** Two or three rows, without a hole. */
const MOST = 6;
const KEYS = TILES.map(([key]) => key);

export function Overview() {
  const { job } = useJobContext();
  const latest = useLatest(job.job_id);
  const series = useSeries(job.job_id, KEYS);
  const curves = new Map(series.data?.series.map((each) => [each.key, each.values]));
  const values = latest.data?.values ?? {};
  const tiles = TILES.filter(([key]) => key in values).slice(0, MOST);
  return (
    <div className={css.overview}>
      <div className={css.stack}>
        {tiles.length > 0 && <dl className={css.tiles}>
          {tiles.map(([key, name, unit]) => (
            <div key={key} className={css.tile}>
              <dt>{name}</dt>
              <dd>
                <span>{figure(values[key], 3)}{unit && <small>{unit}</small>}</span>
                <Sparkline values={thinned(curves.get(key) ?? [])} height={38} label={`${name} so far`} />
              </dd>
            </div>
          ))}
        </dl>}
        {notYet(latest, 6) ?? <TimeCard values={values} />}
        <AttemptsCard />
      </div>
      <div className={css.stack}>
        <HealthCard />
        <PoolsCard />
        <RecentCard />
      </div>
    </div>
  );
}

function thinned(values: readonly Figure[]): Figure[] {
  const every = Math.max(1, Math.ceil(values.length / 80));
  return values.filter((_, index) => index % every === 0 || index === values.length - 1);
}

function TimeCard({ values }: { values: Record<string, Figure> }) {
  const { job } = useJobContext();
  const rollout = usePools(job.job_id).data?.find((pool) => pool.pool === "rollout");
  const split = timeSplit(values);
  if (!split) {
    return <Card title="Where the time goes"><Empty title="No step is finished yet">{job.waiting_for && capital(job.waiting_for)}</Empty></Card>;
  }
  return (
    <Card title="Where the time goes" side={<span className={parts.hint}>the newest step, {fixed(values["driver/step_s"], 2)} s</span>}>
      {job.bottleneck && <p className={css.sentence}>{job.bottleneck}</p>}
      <div className={css.split} role="img" aria-label={split.parts.map((part) => `${part.name} ${percent(part.share)}`).join(", ")}>
        {split.parts.map((part) => <span key={part.name} style={{ flex: part.share, background: part.colour }} title={`${part.name}: ${percent(part.share)}`} />)}
      </div>
      <ul className={css.legend}>
        {split.parts.map((part) => <li key={part.name}><i style={{ background: part.colour }} />{part.name} <b>{percent(part.share)}</b></li>)}
      </ul>
      {job.time_split.length > 0 && <RoleTimes />}
      {job.time_split.length === 0 && split.busy.length > 0 && (
        <div className={css.idle}>
          {split.busy.map(({ role, share }) => [
            <span key={role}>{capital(role)} busy</span>,
            <span key={`${role} bar`} className={css.track}><span style={{ width: percent(share).replace(" ", "") }} /></span>,
            <span key={`${role} share`}>{percent(share)}</span>,
          ])}
        </div>
      )}
      {rollout && advice(rollout) && (
        <p className={css.advice}><b>Rollout workers.</b> {capital(advice(rollout))} {rollout.recommended !== rollout.replicas && <Link to="workers">Change it</Link>}</p>
      )}
    </Card>
  );
}

/** Who waited for whom over the last steps. */
function RoleTimes() {
  const { job } = useJobContext();
  return (
    <div className={css.idle}>
      {job.time_split.map((time) => {
        const shares = roleShares(time);
        const told = shares.map((each) => `${each.name} ${percent(each.share)}`).join(", ");
        return [
          <span key={time.role}>{capital(time.role)}</span>,
          <span key={`${time.role} bar`} className={css.roleBar} role="img" aria-label={`${time.role}: ${told}`} title={told}>
            {shares.map((each) => <span key={each.name} style={{ flex: each.share, background: each.colour }} />)}
          </span>,
          <span key={`${time.role} share`}>{percent(time.busy)} busy</span>,
        ];
      })}
    </div>
  );
}

function HealthCard() {
  const { job } = useJobContext();
  const now_s = useNow();
  const pools = usePools(job.job_id);
  const told = health(job, pools.data ?? [], now_s);
  return (
    <Card title="Health" side={<Badge tone={told.tone}>{told.headline}</Badge>}>
      <dl className={css.pairs}>
        {job.phase && <><dt>Phase</dt><dd>{capital(job.phase)}</dd></>}
        {!isOver(job) && job.waiting_for && <><dt>Waits for</dt><dd>{job.waiting_for}</dd></>}
        {(told.detail ? told.tone !== "bad" : isOver(job)) && <><dt>{isOver(job) ? "End" : "Why"}</dt><dd>{told.detail || capital(job.state)}</dd></>}
        {job.notes && <><dt>Notes</dt><dd>{job.notes}</dd></>}
        {!job.phase && !job.waiting_for && !told.detail && !isOver(job) && <><dt>Driver</dt><dd>has said nothing yet</dd></>}
      </dl>
    </Card>
  );
}

function poolTone(pool: Pool): Tone {
  if (pool.num_serving >= pool.replicas) return "good";
  return pool.pending_reason || pool.num_serving === 0 ? "warning" : "active";
}

function PoolsCard() {
  const { job } = useJobContext();
  const pools = usePools(job.job_id);
  return (
    <Card title="Pools" flush side={<Link to="workers">Workers</Link>}>
      {notYet(pools, 3) ?? (pools.data?.length ? (
        <ul>
          {pools.data.map((pool) => (
            <li key={pool.pool} className={css.poolLine}>
              <span>
                <Dot tone={isOver(job) || pool.workers.length === 0 ? "quiet" : poolTone(pool)}>{capital(pool.pool)}</Dot>
                {!isOver(job) && <WorkerCells pool={pool} />}
                {!isOver(job) && <small>{poolStory(pool, job.state)}</small>}
              </span>
              <b>{isOver(job) ? pool.replicas : <>{pool.num_serving} / {pool.mode === "auto" ? `${pool.min_replicas}–${pool.max_replicas}` : pool.replicas}</>}</b>
            </li>
          ))}
        </ul>
      ) : <Empty title="No pools yet">They appear when the driver has started.</Empty>)}
    </Card>
  );
}

function RecentCard() {
  const { job } = useJobContext();
  const events = useEvents(job.job_id, { kind: NOTABLE }, 6);
  const recent = events.data?.pages[0]?.items ?? [];
  return (
    <Card title="Lately" flush side={<Link to="timeline">Timeline</Link>}>
      {notYet(events, 3) ?? (recent.length === 0 ? <Empty title="Nothing has happened yet" /> : (
        <ul className={css.recent}>
          {recent.map((event) => (
            <li key={event.event_id}>
              <time dateTime={new Date(event.time_s * 1000).toISOString()}>{clock(event.time_s)}</time>
              <Dot tone={eventTone(event)}><span className={css.told}>{inWords(event)}</span></Dot>
            </li>
          ))}
        </ul>
      ))}
    </Card>
  );
}

function AttemptsCard() {
  const { job } = useJobContext();
  const attempts = useAttempts(job.job_id);
  return (
    <Card title="Attempts" flush>
      {notYet(attempts, 2) ?? (attempts.data?.length ? (
        <Scroll label="Attempts">
          <table className={parts.table}>
            <thead><tr><th scope="col" className={parts.num}>No.</th><th scope="col">State</th><th scope="col">Host</th><th scope="col">Begun</th><th scope="col">Ended</th><th scope="col">Outcome</th></tr></thead>
            <tbody>
              {attempts.data.map((attempt) => (
                <tr key={attempt.number}>
                  <td className={parts.num}>{attempt.number}</td>
                  <td><Dot tone={{ created: "quiet", submitted: "active", running: "good", ended: "quiet", lost: "bad" }[attempt.state] as Tone}>{attempt.state}</Dot></td>
                  <td className={parts.nowrap}>{attempt.host ?? "–"}</td>
                  <td>{clock(attempt.created_s)}</td>
                  <td>{attempt.ended_s === null ? "–" : clock(attempt.ended_s)}</td>
                  <td className={css.outcome}>{[attempt.outcome, attempt.exit_code ? `exit code ${attempt.exit_code}` : "", attempt.message].filter(Boolean).join(" · ") || "–"}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      ) : <Empty title="Not launched yet">An attempt appears as soon as the job is handed to the cluster.</Empty>)}
    </Card>
  );
}
