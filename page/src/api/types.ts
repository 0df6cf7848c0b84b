// The messages of the REST API by name; `npm run build` makes `schema.d.ts` of the committed description of the API.
import type { components } from "./schema";

type Schemas = components["schemas"];
/** Answers have every field; the description calls those optional that have a default. */
type Answer<Name extends keyof Schemas> = Required<Schemas[Name]>;

export type Attempt = Answer<"Attempt">;
export type Checked = Answer<"Checked">;
export type Checkpoint = Answer<"Checkpoint">;
export type Cluster = Answer<"Cluster">;
export type Command = Answer<"Command">;
export type Event = Answer<"Event">;
export type FieldProblem = Schemas["FieldProblem"];
export type Job = Answer<"Job">;
export type JobDetail = Answer<"JobDetail">;
export type Agreement = Answer<"Agreement">;
export type Label = Answer<"Label">;
export type LabelSet = Answer<"LabelSet">;
export type LabelStatistics = Answer<"LabelStatistics">;
export type Latest = Answer<"Latest">;
export type LogLine = Answer<"LogLine-Output">;
export type Me = Answer<"Me">;
export type Pool = Omit<Answer<"Pool">, "workers"> & { workers: Worker[] };
export type Problem = Omit<Answer<"Problem">, "type" | "instance">;
export type Recipe = Answer<"Recipe">;
export type RoleTime = Answer<"RoleTime">;
export type Sample = Answer<"Sample">;
export type SampleStep = Answer<"SampleStep">;
export type Series = Answer<"Series">;
export type SeriesSet = Omit<Schemas["SeriesSet"], "series"> & { series: Series[] };
export type SetPool = Partial<Schemas["SetPool"]> & Pick<Pool, "mode">;
export type Shown = Answer<"Shown">;
export type Side = Label["choice"];
export type Submit = Partial<Schemas["Submit"]>;
export type Scope = Me["scopes"][number];
export type Token = Answer<"Token">;
export type NewToken = Answer<"NewToken">;
export type Turn = Answer<"Turn">;
export type Version = Answer<"Version">;
export type Worker = Answer<"Worker">;

export type JobState = Job["state"];
/** null where it is not finite. */
export type Figure = number | null;

export interface Page<Item> {
  items: Item[];
  next_cursor: string | null;
}
