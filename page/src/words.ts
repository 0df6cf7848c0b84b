// What a state, an event, a pool or a job is, in words. Pure.
import type { Event, Job, JobDetail, JobState, Pool } from "./api/types";

export const OVER: readonly JobState[] = ["succeeded", "failed", "cancelled"];

export function isOver(job: Pick<Job, "state">): boolean {
  return OVER.includes(job.state);
}

export type Tone = "quiet" | "active" | "good" | "warning" | "bad";

export const JOB_TONES: Record<JobState, Tone> = {
  queued: "quiet", launching: "active", running: "active", paused: "warning", stopping: "warning",
  succeeded: "good", failed: "bad", cancelled: "quiet",
};

export const ROLES: Record<string, string> = {
  rollout: "Rollout workers", reward: "Reward servers", reference: "Reference scorers", learner: "Learner ranks",
};

const WORKER_TONES: Record<string, Tone> = {
  serving: "good", adopting: "active", starting: "active", spare: "quiet", pending: "warning", draining: "warning", lost: "bad",
};

export function workerTone(state: string): Tone {
  return WORKER_TONES[state] ?? "quiet";
}

const LEVEL_TONES: Record<string, Tone> = { warning: "warning", error: "bad" };

export function eventTone(event: Pick<Event, "level" | "kind" | "body">): Tone {
  if (LEVEL_TONES[event.level]) return LEVEL_TONES[event.level]!;
  if (event.kind === "JobEnded" || event.kind === "JobOver")
    return event.body.outcome === "succeeded" || event.body.state === "succeeded" ? "good" : "warning";
  if (event.kind === "WorkerChanged" && event.body.state === "lost") return "bad";
  return event.kind === "CheckpointSaved" || event.kind === "Evaluated" ? "good" : "quiet";
}

/** How long the driver may be silent before people should know: it says something about once a second. */
export const SILENT_S = 15;

export interface Health {
  tone: Tone;
  headline: string;
  detail: string;
}

export function health(job: JobDetail, pools: readonly Pool[], now_s: number): Health {
  if (isOver(job)) {
    const headline = { succeeded: "Finished", failed: "Failed", cancelled: "Cancelled" }[job.state as "succeeded"];
    return { tone: JOB_TONES[job.state], headline, detail: job.message };
  }
  const silent_s = job.seen_s === null ? 0 : now_s - job.seen_s;
  if (silent_s > SILENT_S && job.state !== "queued" && job.state !== "launching")
    return { tone: "bad", headline: "Not heard from", detail: `Its driver said nothing for ${Math.round(silent_s)} s.` };
  const short = pools.find((pool) => pool.pending_reason);
  if (job.state === "running" && short)
    return { tone: "warning", headline: `Short of ${short.pool} workers`, detail: short.pending_reason };
  const headline = {
    queued: "Waiting to be launched", launching: "Starting", running: "Healthy", paused: "Paused", stopping: "Stopping",
  }[job.state as "running"];
  return { tone: job.state === "running" ? "good" : JOB_TONES[job.state], headline, detail: job.message };
}

/** Whether the driver has obeyed, and what it still lacks. */
export function poolStory(pool: Pool, state: JobState = "running"): string {
  const wanted = pool.mode === "auto" ? `between ${pool.min_replicas} and ${pool.max_replicas}` : String(pool.replicas);
  if (pool.observed_generation < pool.generation) return `Asked for ${wanted}; the driver has not taken it up yet.`;
  if (pool.num_pending > 0) {
    const who = `${pool.num_pending} not serving yet`;
    return pool.pending_reason ? `${who}: ${pool.pending_reason}` : `${who}: starting.`;
  }
  if (pool.num_draining > 0) return `${pool.num_draining} draining: their unfinished work is handed over first.`;
  if (pool.workers.length === 0 && (state === "queued" || state === "launching")) return "Starts with the job.";
  if (pool.num_serving < pool.replicas) return `${pool.replicas - pool.num_serving} missing; a replacement is on its way.`;
  return "As many as wanted.";
}

/** What the measured rates say about the number of replicas; a pool that a policy sets needs no advice. */
export function advice(pool: Pool): string {
  if (pool.mode === "auto" || !pool.recommended) return "";
  if (pool.recommended === pool.replicas) return `${pool.replicas} is the right number at this pace.`;
  return `${pool.recommended} would be better than ${pool.replicas}${pool.reason ? `: ${pool.reason}` : "."}`;
}

/** The kinds of events that are worth a line of their own; the steps are in the charts. */
export const NOTABLE = [
  "JobStarted", "Phase", "Evaluated", "GroupDropped", "RewardFailed", "CheckpointSaved", "WorkerChanged", "PromptQuarantined",
  "LearnerRecovered", "Notice", "GuardTripped", "JobEnded", "JobOver", "Asked", "AttemptSubmitted", "AttemptStarted", "AttemptEnded",
  "AttemptLost", "AttemptRefused",
];

/** The sentence of the service, or one made of the event's fields. */
export function inWords(event: Pick<Event, "kind" | "text" | "body" | "step">): string {
  // The paths are with the checkpoints.
  if (event.kind === "CheckpointSaved") return `Checkpoint saved at step ${event.step}`;
  // What was asked begins with who asked, and a name is written as its owner writes it.
  if (event.kind === "Asked") return asked(event.text, event.body as Record<string, string | number | null | undefined>);
  if (event.text) return capital(event.text);
  const body = event.body as Record<string, string | number | undefined>;
  switch (event.kind) {
    case "JobStarted":
      return body.first_step ? `Started again at step ${body.first_step}` : "Started";
    case "Phase":
      return capital(String(body.name ?? "A new phase"));
    case "StepDone":
      return `Step ${event.step} done`;
    case "Evaluated":
      return `Evaluated at step ${event.step}`;
    case "WorkerChanged":
      return `${body.worker_id} is ${body.state}${body.reason ? `: ${body.reason}` : ""}`;
    case "JobEnded":
      return `Ended: ${body.outcome}${body.message ? `, ${body.message}` : ""}`;
    default:
      return capital(event.kind.replace(/(?<=[a-z])(?=[A-Z])/g, " ").toLowerCase());
  }
}

/** `ada asked: scale, role = rollout, num_workers = 3` as people say it; what has no such words stays as it is. */
function asked(text: string, body: Record<string, string | number | null | undefined>): string {
  const who = text.split(" asked")[0];
  const many = (number: unknown) => `${number} ${body.role} ${number === 1 ? "worker" : "workers"}`;
  switch (body.command) {
    case "Scale":
      return `${who} asked for ${many(body.num_workers)}`;
    case "Autoscale":
      return body.min_workers ? `${who} lets a policy keep between ${body.min_workers} and ${many(body.max_workers)}` : `${who} asked for a fixed number of ${body.role} workers`;
    case "Drain": case "Restart":
      return `${who} asked to ${String(body.command).toLowerCase()} ${body.worker_id}`;
    case "Pause": case "Resume": case "Stop": case "Checkpoint":
      return `${who} asked the job to ${{ Pause: "pause", Resume: "go on", Stop: "end", Checkpoint: "write a checkpoint" }[body.command]}`;
    default:
      return text;
  }
}

export function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** Seconds until the last step at the present pace, or null before there is one. */
export function eta_s(job: Job, step_s: number | null | undefined): number | null {
  return job.state === "running" && step_s ? step_s * Math.max(0, job.num_steps - job.step) : null;
}
