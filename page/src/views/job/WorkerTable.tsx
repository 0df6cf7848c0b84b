// The replicas of one pool, a line each, in columns that stand under each other in all pools.
import { useState } from "react";
import { newKey } from "../../api/client";
import { useWorkerVerb, type WorkerVerb } from "../../api/queries";
import type { Pool, Worker } from "../../api/types";
import { bytes, count, duration, percent } from "../../format";
import { useNow } from "../../parts/now";
import { Bar, Button, classes, Confirm, Dot, parts, Scroll, sentenceOf } from "../../parts/parts";
import { useSay } from "../../parts/say";
import { capital, isOver, ROLES, workerTone } from "../../words";
import { useJobContext } from "./Job";
import css from "./job.module.css";

const NUMBERS = ["Version", "Behind", "Tokens/s", "Busy", "In flight", "Memory", "Since"] as const;

export function WorkerTable({ pool }: { pool: Pool }) {
  const most = Math.max(1, ...pool.workers.map((worker) => worker.tokens_per_s ?? 0));
  return (
    <Scroll label={`${ROLES[pool.pool]}, one by one`}>
      <table className={classes(parts.table, css.workers)}>
        <caption className={parts.hidden}>{ROLES[pool.pool]}</caption>
        <colgroup><col className={css.colWorker} /><col />{NUMBERS.map((name) => <col key={name} className={css.colNumber} />)}<col className={css.colAsk} /></colgroup>
        <thead>
          <tr>
            <th scope="col">Worker</th><th scope="col">State</th>
            {NUMBERS.map((name) => <th key={name} scope="col" className={parts.num}>{name}</th>)}
            <th scope="col"><span className={parts.hidden}>Ask of it</span></th>
          </tr>
        </thead>
        <tbody>{pool.workers.map((worker) => <Row key={worker.worker_id} worker={worker} pool={pool} most={most} />)}</tbody>
      </table>
    </Scroll>
  );
}

function Row({ worker, pool, most }: { worker: Worker; pool: Pool; most: number }) {
  const { job, mayRun } = useJobContext();
  const now_s = useNow();
  const isActive = worker.state === "serving" || worker.state === "adopting";
  const isThere = !isOver(job) && worker.state !== "draining" && worker.state !== "lost";
  const hasVersion = worker.version >= 0 && (pool.pool === "rollout" || pool.pool === "learner");
  const rate = isActive && (pool.pool === "rollout" || pool.pool === "reference") ? worker.tokens_per_s : null;
  return (
    <tr>
      <td><code>{worker.worker_id}</code></td>
      <td>
        <Dot tone={workerTone(worker.state)}>{worker.state}</Dot>
        {worker.reason && <span className={css.reason}>{worker.reason}</span>}
      </td>
      <td className={parts.num}>{hasVersion ? worker.version : NONE}</td>
      <td className={parts.num}>{hasVersion ? <span className={worker.lag > 0 ? css.lag : css.lag0}>{worker.lag}</span> : NONE}</td>
      <td className={parts.num}>{rate === null ? NONE : <>{count(Math.round(rate))}<Bar share={rate / most} label="beside the fastest" /></>}</td>
      <td className={parts.num}>{isActive ? percent(worker.busy_share) : NONE}</td>
      <td className={parts.num} title={worker.tokens_in_flight > 0 ? `${count(worker.tokens_in_flight)} tokens so far` : undefined}>{isActive || worker.num_in_flight > 0 ? worker.num_in_flight : NONE}</td>
      <td className={parts.num}>{worker.rss_bytes > 0 ? bytes(worker.rss_bytes) : NONE}</td>
      <td className={parts.num}>{worker.since_s > 0 ? duration(now_s - worker.since_s) : NONE}</td>
      <td className={classes(parts.num, css.ask)}>{mayRun && pool.is_elastic && isThere && <Asks worker={worker} pool={pool} />}</td>
    </tr>
  );
}

const NONE = <span className={parts.hint}>–</span>;

function Asks({ worker, pool }: { worker: Worker; pool: Pool }) {
  const { job } = useJobContext();
  const ask = useWorkerVerb(job.job_id);
  const say = useSay();
  const [asked, setAsked] = useState<WorkerVerb | null>(null);
  const close = (verb: WorkerVerb, isMeant: boolean) => {
    setAsked(null);
    if (!isMeant) return;
    ask.mutate({ workerId: worker.worker_id, verb, key: newKey() }, {
      onSuccess: () => say(verb === "drain" ? `${worker.worker_id} hands its work over and leaves.` : `${worker.worker_id} is replaced by a new one.`),
      onError: (error) => say(sentenceOf(error), "bad"),
    });
  };
  return (
    <>
      {(["restart", "drain"] as const).map((verb) => (
        <Button key={verb} small kind="plain" disabled={ask.isPending} onClick={() => setAsked(verb)} aria-label={`${capital(verb)} ${worker.worker_id}`}>{capital(verb)}</Button>
      ))}
      {asked === "drain" && (
        <Confirm title={`Drain ${worker.worker_id}?`} action="Drain it" onClose={(isMeant) => close("drain", isMeant)}>
          It takes no more work, hands over what it has, and leaves. The pool has one worker less from then on: {Math.max(0, pool.replicas - 1)} instead of {pool.replicas}.
        </Confirm>
      )}
      {asked === "restart" && (
        <Confirm title={`Restart ${worker.worker_id}?`} action="Restart it" onClose={(isMeant) => close("restart", isMeant)}>
          Another worker starts in its place, and what it has under way is handed over. The pool stays at {pool.replicas}.
        </Confirm>
      )}
    </>
  );
}
