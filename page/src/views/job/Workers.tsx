// The replicas of every role, and how many there should be.
import { useEffect, useRef, useState } from "react";
import { ApiError } from "../../api/client";
import { usePools, useSetPool } from "../../api/queries";
import type { Pool, SetPool } from "../../api/types";
import { Badge, Button, Card, classes, Empty, Note, notYet, parts, Segments, sentenceOf, Stepper } from "../../parts/parts";
import { useSay } from "../../parts/say";
import { advice, capital, isOver, poolStory, ROLES } from "../../words";
import { useJobContext } from "./Job";
import css from "./job.module.css";
import { WorkerCells } from "./WorkerCells";
import { WorkerTable } from "./WorkerTable";

export function Workers() {
  const { job } = useJobContext();
  const pools = usePools(job.job_id);
  return notYet(pools, 8) ?? (
    <div className={css.stack}>
      {isOver(job) && <Note tone="quiet">The job is over; its workers have left.</Note>}
      {pools.data?.map((pool) => <PoolCard key={pool.pool} pool={pool} />)}
      {pools.data?.length === 0 && <Card><Empty title="No workers yet">They appear when the driver has started.</Empty></Card>}
    </div>
  );
}

const SETTLED_MS = 600;

function PoolCard({ pool }: { pool: Pool }) {
  const { job } = useJobContext();
  const over = isOver(job);
  const isShort = !over && pool.num_pending > 0 && pool.pending_reason !== "";
  return (
    <section className={parts.card} aria-label={ROLES[pool.pool]}>
      <div className={css.poolHead}>
        <div className={css.poolName}>
          <h2>
            {ROLES[pool.pool] ?? capital(pool.pool)}
            {!over && pool.observed_generation < pool.generation && <Badge tone="active" pulses>asked</Badge>}
          </h2>
          {!over && <p className={classes(isShort && css.warn)} aria-live="polite">{poolStory(pool, job.state)}</p>}
          {!over && (advice(pool) || (pool.mode === "auto" && pool.reason)) && <p>{capital(advice(pool) || `the policy says: ${pool.reason}`)}</p>}
        </div>
        {!over && <Scaling pool={pool} />}
      </div>
      {pool.workers.length > 1 && (
        <div className={css.summary}>
          <WorkerCells pool={pool} />
          <p className={css.counts}>
            <span>{pool.num_serving} serving</span>
            {pool.num_pending > 0 && <span>{pool.num_pending} to come</span>}
            {pool.num_draining > 0 && <span>{pool.num_draining} draining</span>}
            <span>{pool.num_restarts} {pool.num_restarts === 1 ? "restart" : "restarts"}</span>
          </p>
        </div>
      )}
      {pool.last_error && <div className={css.failure}><Note tone="warning"><b>Last failure.</b> {pool.last_error}</Note></div>}
      {pool.workers.length === 0 ? <Empty title="None right now" /> : <WorkerTable pool={pool} />}
    </section>
  );
}

function Scaling({ pool }: { pool: Pool }) {
  const { job, mayRun } = useJobContext();
  const set = useSetPool(job.job_id);
  const say = useSay();
  const [range, setRange] = useState<[number, number] | null>(null);
  const [draft, setDraft] = useState<number | null>(null);
  const send = useRef((_: number) => {});
  // Three clicks are one wish: it is sent when the clicking has stopped, and what was sent before is answered.
  useEffect(() => {
    if (draft === null || set.isPending) return;
    const timer = setTimeout(() => send.current(draft), SETTLED_MS);
    return () => clearTimeout(timer);
  }, [draft, set.isPending]);
  if (!pool.is_elastic) return <span className={parts.hint}>{pool.replicas} fixed: this pool starts and restarts as a whole</span>;
  const ask = (want: SetPool, onSettled?: () => void) =>
    set.mutate({ pool, want }, {
      onSuccess: () => say(want.mode === "auto" ? `A policy keeps between ${want.min_replicas} and ${want.max_replicas} ${pool.pool} workers.` : `Asked for ${want.replicas} ${pool.pool} ${want.replicas === 1 ? "worker" : "workers"}.`),
      onError: (error) => say(error instanceof ApiError && error.status === 412 ? "Somebody else changed this pool meanwhile; look at it again." : sentenceOf(error), "bad"),
      onSettled,
    });
  send.current = (replicas) => ask({ mode: "manual", replicas }, () => setDraft((wish) => (wish === replicas ? null : wish)));
  const isAuto = pool.mode === "auto" || range !== null;
  const [least, most] = range ?? [pool.min_replicas ?? 1, pool.max_replicas ?? Math.max(2, pool.replicas)];
  const isBusy = set.isPending || !mayRun;
  return (
    <div className={css.scaling}>
      {pool.pool === "rollout" && <Segments
        label={`Who sets the number of ${pool.pool} workers`} value={isAuto ? "auto" : "manual"} disabled={isBusy} options={[["manual", "Fixed"], ["auto", "Auto"]]}
        onChange={(mode) => {
          if (mode === "auto") return setRange([1, Math.max(2, pool.replicas * 2)]);
          setRange(null);
          if (pool.mode === "auto") ask({ mode: "manual", replicas: pool.replicas });
        }}
      />}
      {!isAuto && <Stepper label={`Number of ${pool.pool} workers`} value={draft ?? pool.replicas} disabled={!mayRun} onChange={setDraft} />}
      {isAuto && (
        <>
          <Stepper label={`Fewest ${pool.pool} workers`} value={least} max={most} disabled={isBusy} onChange={(value) => setRange([value, most])} />
          <span>to</span>
          <Stepper label={`Most ${pool.pool} workers`} value={most} min={least} disabled={isBusy} onChange={(value) => setRange([least, value])} />
          {range && (
            <Button kind="primary" small disabled={isBusy} onClick={() => { ask({ mode: "auto", min_replicas: least, max_replicas: most }); setRange(null); }}>
              {pool.mode === "auto" ? "Change" : "Let a policy choose"}
            </Button>
          )}
          {!range && <span>now {pool.replicas}</span>}
        </>
      )}
    </div>
  );
}
