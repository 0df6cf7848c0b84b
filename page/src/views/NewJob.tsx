// A job to run: a recipe with what differs from it, or a file of one's own; checked by the service while one writes.
import { keepPreviousData, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useRef, useState } from "react";
import { useNavigate } from "react-router";
import { newKey, send } from "../api/client";
import { problemsOf } from "../api/problems";
import { useRecipes } from "../api/queries";
import type { Checked, FieldProblem, JobDetail, Submit } from "../api/types";
import { Badge, Button, Card, classes, Empty, ErrorNote, notYet, parts, Segments } from "../parts/parts";
import { useTitle } from "../Shell";
import { flat, lineOf, written } from "../toml";
import css from "./views.module.css";

const KNOBS: readonly (readonly [key: string, name: string])[] = [
  ["train.num_steps", "Steps"], ["train.prompts_per_step", "Prompts a step"],
  ["train.completions_per_prompt", "Completions a prompt"], ["train.max_staleness", "Most staleness"],
  ["rollout.num_workers", "Rollout workers"], ["rollout.max_new_tokens", "Most new tokens"],
  ["learner.optimizer.lr", "Learning rate"], ["algorithm.kl_coef", "KL coefficient"], ["seed", "Seed"],
];
const CHECK_MS = 400;
const EXAMPLE = "# A job file. Start from a recipe: choose one on the left and press “Edit as a file”.\n";

export function NewJob() {
  useTitle("New job");
  const recipes = useRecipes();
  const go = useNavigate();
  const client = useQueryClient();
  const [mode, setMode] = useState<"recipe" | "file">("recipe");
  const [recipe, setRecipe] = useState<string | null>(null);
  const [knobs, setKnobs] = useState<Record<string, string>>({});
  const [more, setMore] = useState("");
  const [source, setSource] = useState(EXAMPLE);
  const [about, setAbout] = useState({ name: "", labels: "", notes: "", attempts: "3" });
  const key = useRef(newKey());
  const chosen = recipe ?? recipes.data?.[0]?.name ?? null;

  const overrides = [
    ...Object.entries(knobs).filter(([, value]) => value.trim() !== "").map(([name, value]) => `${name}=${value.trim()}`),
    ...more.split("\n").map((line) => line.trim()).filter(Boolean),
  ];
  const body: Submit = {
    ...(mode === "recipe" ? { recipe: chosen ?? "", overrides } : { source, format: "toml" }),
    ...(about.name.trim() && { name: about.name.trim() }),
    labels: labelsOf(about.labels), notes: about.notes, max_attempts: Number(about.attempts) || 1,
  };
  const asked = useLater(JSON.stringify(body), CHECK_MS);
  const isWorthChecking = mode === "recipe" ? chosen !== null : source.trim() !== "" && source !== EXAMPLE;
  const checked = useQuery({
    queryKey: ["checked", asked],
    queryFn: () => send<Checked>("POST", "/jobs/validate", { body: JSON.parse(asked) }),
    // What is asked lags behind what is written.
    enabled: isWorthChecking && asked === JSON.stringify(body),
    placeholderData: keepPreviousData,
    staleTime: Infinity,
  });
  const submit = useMutation({
    mutationFn: () => send<JobDetail>("POST", "/jobs", { body, headers: { "Idempotency-Key": key.current } }),
    onSuccess: (job) => {
      void client.invalidateQueries({ queryKey: ["jobs"] });
      void go(`/jobs/${job.job_id}`);
    },
    // What was refused may be sent again, changed.
    onError: () => (key.current = newKey()),
  });
  const isCurrent = asked === JSON.stringify(body) && !checked.isFetching;
  const problems = checked.error ? problemsOf(checked.error) : [];
  const isGood = isWorthChecking && isCurrent && checked.data !== undefined && !checked.error;
  // What a field has when it is left empty is known from the last job that was good.
  const lastGood = useRef<Checked | undefined>(undefined);
  if (checked.data && !checked.error && mode === "recipe") lastGood.current = checked.data;
  const config = new Map(lastGood.current ? flat(lastGood.current.config) : []);
  return (
    <form onSubmit={(event) => { event.preventDefault(); if (isGood) submit.mutate(); }}>
      <div className={css.head}>
        <h1>New job</h1>
        <Segments label="Start from" value={mode} onChange={setMode} options={[["recipe", "Recipe"], ["file", "Job file"]]} />
      </div>
      <div className={css.newJob}>
        <div className={css.column}>
          {mode === "recipe" ? (
            <>
              <Card title="Recipe" side={chosen && <Button small onClick={() => { setSource(recipes.data?.find((each) => each.name === chosen)?.source ?? ""); setMode("file"); }}>Edit as a file</Button>}>
                {notYet(recipes, 2) ?? (
                  <div className={css.recipes} role="group" aria-label="Recipe">
                    {recipes.data?.map((each) => (
                      <button key={each.name} type="button" className={css.recipe} aria-pressed={each.name === chosen} onClick={() => setRecipe(each.name)}>
                        <b>{each.name}</b><span>{each.description}</span>
                      </button>
                    ))}
                  </div>
                )}
              </Card>
              <Card title="What differs from it" side={<span className={parts.hint}>left empty, it is as the recipe says</span>}>
                <div className={css.fields}>
                  {KNOBS.map(([path, name]) => (
                    <Knob key={path} path={path} name={name} value={knobs[path] ?? ""} usual={config.get(path)} problems={problems} onChange={(value) => setKnobs({ ...knobs, [path]: value })} />
                  ))}
                </div>
                <label className={parts.field} style={{ marginTop: 14 }}>
                  <span>Anything else, one <code>key=value</code> a line</span>
                  <textarea className={parts.input} style={{ height: 66, padding: "7px 10px", fontFamily: "var(--mono)", fontSize: 12.5 }} spellCheck={false} placeholder={"evaluation.every_steps=10\ncheckpoint.keep=3"} value={more} onChange={(event) => setMore(event.target.value)} />
                </label>
              </Card>
            </>
          ) : (
            <Card title="Job file" side={<span className={parts.hint}>TOML</span>}>
              <Editor source={source} problems={problems} onChange={setSource} />
            </Card>
          )}
          <Card title="About it">
            <div className={css.fields}>
              <Text label="Name" value={about.name} placeholder={mode === "recipe" ? String(config.get("name") ?? "") : "as in the file"} onChange={(name) => setAbout({ ...about, name })} />
              <Text label="Labels" value={about.labels} placeholder="team=nlp, trial" onChange={(labels) => setAbout({ ...about, labels })} />
              <Text label="Most attempts" value={about.attempts} type="number" onChange={(attempts) => setAbout({ ...about, attempts })} />
              <Text label="Notes" value={about.notes} placeholder="What is to be found out" onChange={(notes) => setAbout({ ...about, notes })} />
            </div>
          </Card>
        </div>
        <div className={classes(css.column, css.sticky)}>
          <Card title="Plan" side={<Badge tone={!isWorthChecking ? "quiet" : checked.error ? "bad" : isGood ? "good" : "active"}>{!isWorthChecking ? "nothing to check" : checked.error ? "refused" : isGood ? "good" : "checking"}</Badge>}>
            {!isWorthChecking && <p className={parts.hint}>What the job would reserve is told here.</p>}
            {checked.error ? <Problems problems={problems} source={mode === "file" ? source : null} /> : checked.data && (
              <div className={css.plan}>{checked.data.lines.map((line, index) => <span key={index}>{line}</span>)}</div>
            )}
          </Card>
          {submit.error && <ErrorNote error={submit.error} />}
          <Button type="submit" kind="primary" disabled={!isGood || submit.isPending}>{submit.isPending ? "Submitting …" : "Submit the job"}</Button>
          <p className={parts.hint}>Submitting runs code on the cluster with the rights of its nodes.</p>
          {checked.data && !checked.error && (
            <details className={classes(parts.card, css.differs)}>
              <summary>{flat(checked.data.changed).length} settings differ from the defaults</summary>
              <dl>
                {flat(checked.data.changed).map(([path, value]) => <div key={path} className={css.changes}><dt>{path}</dt><dd>{written(value)}</dd></div>)}
              </dl>
            </details>
          )}
        </div>
      </div>
    </form>
  );
}

function Knob({ path, name, value, usual, problems, onChange }: {
  path: string; name: string; value: string; usual: unknown; problems: FieldProblem[]; onChange: (value: string) => void;
}) {
  const problem = problems.find((each) => each.loc === path);
  const placeholder = usual === undefined || value !== "" ? "" : written(usual);
  return (
    <label className={parts.field}>
      <span>{name}</span>
      <input
        className={parts.input} value={value} placeholder={placeholder} spellCheck={false} inputMode="decimal" aria-invalid={problem !== undefined}
        aria-describedby={problem && `${path}-problem`} onChange={(event) => onChange(event.target.value)}
      />
      {problem ? <span className={parts.fieldProblem} id={`${path}-problem`} role="alert">{problem.msg.replace(/^\S+( = .*?)?: /, "")}</span> : <code>{path}</code>}
    </label>
  );
}

function Text({ label, value, onChange, ...rest }: {
  label: string; value: string; placeholder?: string; type?: string; onChange: (value: string) => void;
}) {
  return (
    <label className={parts.field}>
      <span>{label}</span>
      <input className={parts.input} value={value} onChange={(event) => onChange(event.target.value)} {...rest} />
    </label>
  );
}

function Problems({ problems, source }: { problems: FieldProblem[]; source: string | null }) {
  const jump = (line: number) => {
    const box = document.querySelector<HTMLTextAreaElement>("#job-file");
    if (!box) return;
    const start = box.value.split("\n").slice(0, line - 1).reduce((sum, each) => sum + each.length + 1, 0);
    box.focus();
    box.setSelectionRange(start, start + (box.value.split("\n")[line - 1]?.length ?? 0));
  };
  return (
    <div className={css.problems} role="alert">
      {problems.map((each, index) => {
        const line = source && each.loc ? lineOf(source, each.loc) : null;
        const said = <>{each.loc && !each.msg.startsWith(each.loc) && <code>{each.loc}</code>}<span>{each.msg}</span></>;
        return line ? <button key={index} type="button" className={css.problem} onClick={() => jump(line)}><code>line {line}</code>{said}</button> : <div key={index} className={css.problem}>{said}</div>;
      })}
      {problems.length === 0 && <Empty title="The service does not answer" />}
    </div>
  );
}

function Editor({ source, problems, onChange }: { source: string; problems: FieldProblem[]; onChange: (source: string) => void }) {
  const lines = source.split("\n");
  const wrong = new Set(problems.map((each) => (each.loc ? lineOf(source, each.loc) : null)));
  return (
    <div className={css.editor}>
      <div className={css.gutter} aria-hidden="true">{lines.map((_, index) => <div key={index} className={wrong.has(index + 1) ? css.wrong : undefined}>{wrong.has(index + 1) ? "●" : ""} {index + 1}</div>)}</div>
      <textarea
        id="job-file" aria-label="Job file" aria-invalid={problems.length > 0} spellCheck={false} autoCapitalize="off" wrap="off"
        rows={Math.max(13, lines.length)} cols={Math.max(40, ...lines.map((line) => line.length))} value={source} onChange={(event) => onChange(event.target.value)}
      />
    </div>
  );
}

function labelsOf(text: string): Record<string, string> {
  const pairs = text.split(",").map((each) => each.trim()).filter(Boolean);
  return Object.fromEntries(pairs.map((each) => [each.split("=")[0]!.trim(), each.split("=").slice(1).join("=").trim()]));
}

/** The newest value, once it has stayed the same for a while. */
function useLater(value: string, wait_ms: number): string {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), wait_ms);
    return () => clearTimeout(timer);
  }, [value, wait_ms]);
  return settled;
}
