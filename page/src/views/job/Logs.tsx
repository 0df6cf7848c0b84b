// What the driver and the workers printed, following the end unless one scrolls away from it.
import { useDeferredValue, useEffect, useRef, useState } from "react";
import { useSearchParams } from "react-router";
import { useComponents, useLogs } from "../../api/queries";
import type { LogLine } from "../../api/types";
import { clock } from "../../format";
import { Button, Card, Empty, notYet, parts } from "../../parts/parts";
import type { Tone } from "../../words";
import { useJobContext } from "./Job";
import css from "./job.module.css";

const NEAR_PX = 40;

export function Logs() {
  const { job } = useJobContext();
  const [search, setSearch] = useSearchParams();
  const component = search.get("component") ?? "";
  const [q, setQ] = useState("");
  const wanted = useDeferredValue(q);
  const [follows, setFollows] = useState(true);
  const components = useComponents(job.job_id);
  const logs = useLogs(job.job_id, { component: component || undefined, q: wanted || undefined });
  const lines = logs.data ?? [];
  const list = useRef<HTMLOListElement>(null);
  const known = [...new Set([...(components.data ?? []), ...(component ? [component] : [])])].sort();

  useEffect(() => {
    if (follows) list.current?.scrollTo({ top: list.current.scrollHeight });
  }, [follows, lines.at(-1)?.line_id]);

  const scrolled = () => {
    const box = list.current!;
    setFollows(box.scrollHeight - box.scrollTop - box.clientHeight < NEAR_PX);
  };
  return (
    <>
      <div className={css.tools} role="search">
        <label>From
          <select className={parts.input} value={component} onChange={(event) => setSearch(event.target.value ? { component: event.target.value } : {}, { replace: true })}>
            <option value="">everything</option>
            {known.map((each) => <option key={each}>{each}</option>)}
          </select>
        </label>
        <input className={parts.input} type="search" placeholder="Words in a line" aria-label="Search the log" value={q} onChange={(event) => setQ(event.target.value)} />
        <label className={css.spring}><input type="checkbox" checked={follows} onChange={(event) => setFollows(event.target.checked)} />Follow the end</label>
        <Button small disabled={lines.length === 0} onClick={() => save(job.name, lines)}>Save</Button>
      </div>
      {notYet(logs, 10) ?? (lines.length === 0 ? (
        <Card><Empty title={wanted || component ? "No line matches" : "Nothing printed yet"}>{wanted || component ? "Try other words, or another worker." : "Lines of the driver and of every worker come here."}</Empty></Card>
      ) : (
        <ol ref={list} className={css.log} tabIndex={0} aria-label="Log lines" onScroll={scrolled}>
          {lines.map((line) => (
            <li key={line.line_id} data-tone={toneOf(line.line)}>
              <time dateTime={new Date(line.time_s * 1000).toISOString()}>{clock(line.time_s)}</time>
              <span className={css.who} title={line.component}>{line.component}</span>
              <span className={css.line}>{line.line}</span>
            </li>
          ))}
        </ol>
      ))}
    </>
  );
}

function toneOf(line: string): Tone | undefined {
  if (/\b(ERROR|CRITICAL|Traceback|error:)/.test(line)) return "bad";
  return /\b(WARN(ING)?|warning:)/.test(line) ? "warning" : undefined;
}

function save(name: string, lines: readonly LogLine[]): void {
  const text = lines.map((line) => `${new Date(line.time_s * 1000).toISOString()} ${line.component} ${line.line}\n`).join("");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  link.download = `${name}.log`;
  link.click();
  URL.revokeObjectURL(link.href);
}
