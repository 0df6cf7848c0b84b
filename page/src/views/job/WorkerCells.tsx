// The replicas of a pool at a glance: one square each, in the colour of its state.
import type { Pool } from "../../api/types";
import { workerTone } from "../../words";
import css from "./job.module.css";

export function WorkerCells({ pool }: { pool: Pool }) {
  if (pool.workers.length === 0) return null;
  return (
    <ul className={css.cells} aria-hidden="true">
      {pool.workers.map((worker) => <li key={worker.worker_id} data-tone={workerTone(worker.state)} title={`${worker.worker_id}: ${worker.state}`} />)}
    </ul>
  );
}
