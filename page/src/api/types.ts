// The messages of the REST API, as rlhf_cluster/wire has them.
export type JobState =
  | "queued" | "launching" | "running" | "paused" | "stopping" | "succeeded" | "failed" | "cancelled";
export type Scope = "read" | "label" | "submit" | "admin";
export type PoolName = "rollout" | "reward" | "reference" | "learner";
/** null where it is not finite. */
export type Figure = number | null;

export interface Page<Item> {
  items: Item[];
  next_cursor: string | null;
}

export interface FieldProblem {
  loc: string;
  msg: string;
}

export interface Problem {
  title: string;
  status: number;
  detail: string;
  code: string;
  errors: FieldProblem[];
  request_id: string;
}

export interface Me {
  name: string;
  scopes: Scope[];
}

export interface Version {
  version: string;
  api: string;
}

export interface Job {
  job_id: string;
  name: string;
  owner: string;
  labels: Record<string, string>;
  state: JobState;
  message: string;
  step: number;
  num_steps: number;
  created_s: number;
  started_s: number | null;
  ended_s: number | null;
}

export interface JobDetail extends Job {
  notes: string;
  source: string;
  config: Record<string, unknown>;
  changed: Record<string, unknown>;
  max_attempts: number;
  num_attempts: number;
  phase: string;
  waiting_for: string;
  bottleneck: string;
  seen_s: number | null;
}

export interface Submit {
  recipe?: string;
  source?: string;
  format?: "toml" | "yaml";
  overrides?: string[];
  name?: string;
  labels?: Record<string, string>;
  notes?: string;
  max_attempts?: number;
}

export interface Checked {
  config: Record<string, unknown>;
  changed: Record<string, unknown>;
  lines: string[];
}

export interface Attempt {
  number: number;
  state: "created" | "submitted" | "running" | "ended" | "lost";
  outcome: string | null;
  exit_code: number | null;
  message: string;
  host: string | null;
  submission_id: string;
  created_s: number;
  ended_s: number | null;
}

export interface Command {
  command_id: string;
  job_id: string;
  body: Record<string, unknown>;
  state: "pending" | "delivered" | "done" | "refused" | "expired";
  answer: string;
  created_by: string;
  created_s: number;
  answered_s: number | null;
}

export interface SetPool {
  mode: "manual" | "auto";
  replicas?: number;
  min_replicas?: number;
  max_replicas?: number;
}

export interface Worker {
  worker_id: string;
  pool: PoolName;
  state: string;
  reason: string;
  version: number;
  lag: number;
  num_in_flight: number;
  tokens_in_flight: number;
  tokens_per_s: Figure;
  busy_share: Figure;
  rss_bytes: number;
  since_s: number;
}

export interface Pool {
  pool: PoolName;
  is_elastic: boolean;
  mode: "manual" | "auto";
  replicas: number;
  min_replicas: number | null;
  max_replicas: number | null;
  generation: number;
  observed_generation: number;
  num_serving: number;
  num_pending: number;
  num_draining: number;
  num_restarts: number;
  pending_reason: string;
  last_error: string;
  workers: Worker[];
}

export interface Latest {
  values: Record<string, Figure>;
  step: number;
}

export interface Series {
  key: string;
  steps: number[];
  values: Figure[];
  lows: Figure[] | null;
  highs: Figure[] | null;
}

export interface SeriesSet {
  series: Series[];
  last_step: number;
}

export interface Sample {
  sample_id: number;
  kind: string;
  step: number;
  request_id: number;
  prompt_id: string;
  prompt: string;
  completion: string;
  reward: Figure;
  breakdown: Record<string, Figure>;
  num_tokens: number;
  body: Record<string, unknown>;
}

export interface SampleStep {
  kind: string;
  step: number;
  num_samples: number;
}

export interface Event {
  event_id: number;
  topic: string;
  job_id: string;
  time_s: number;
  step: number;
  kind: string;
  level: string;
  text: string;
  body: Record<string, unknown>;
}

export interface LogLine {
  line_id: number;
  component: string;
  time_s: number;
  line: string;
}

export interface Checkpoint {
  step: number;
  path: string;
  time_s: number;
}

export interface Recipe {
  name: string;
  description: string;
  source: string;
}

export interface Cluster {
  address: string | null;
  is_reachable: boolean;
  reason: string;
  ray_version: string | null;
  nodes: { node_id: string; state: string; resources: Record<string, number> }[];
  total: Record<string, number>;
  used: Record<string, number>;
}
