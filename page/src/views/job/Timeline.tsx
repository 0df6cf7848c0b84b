// What happened, in words, newest first.
import { useSearchParams } from "react-router";
import { useEvents } from "../../api/queries";
import type { Event } from "../../api/types";
import { clock, day } from "../../format";
import { Button, Card, Empty, notYet, parts, Segments } from "../../parts/parts";
import { eventTone, inWords, NOTABLE } from "../../words";
import { useJobContext } from "./Job";
import css from "./job.module.css";

const FILTERS = {
  notable: { kind: NOTABLE },
  workers: { kind: ["WorkerChanged", "PromptQuarantined", "LearnerRecovered"] },
  warnings: { level: "warning" },
  all: {},
};
type Filter = keyof typeof FILTERS;

export function Timeline() {
  const { job } = useJobContext();
  const [search, setSearch] = useSearchParams();
  const filter = (search.get("show") ?? "notable") as Filter;
  const events = useEvents(job.job_id, FILTERS[filter] ?? {});
  const rows = events.data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <>
      <div className={css.tools}>
        <Segments
          label="Which events" value={filter} onChange={(show) => setSearch(show === "notable" ? {} : { show }, { replace: true })}
          options={[["notable", "Notable"], ["workers", "Workers"], ["warnings", "Warnings"], ["all", "Every step too"]]}
        />
      </div>
      {notYet(events, 8) ?? (rows.length === 0 ? (
        <Card><Empty title={filter === "notable" || filter === "all" ? "Nothing has happened yet" : "Nothing of this kind has happened"} /></Card>
      ) : (
        <>
          {days(rows).map(([name, ofDay]) => (
            <section key={name} aria-label={name}>
              <h2 className={css.day}>{name}</h2>
              <div className={parts.card}>
                <ol className={css.events}>{ofDay.map((event) => <Line key={event.event_id} event={event} />)}</ol>
              </div>
            </section>
          ))}
          {events.hasNextPage && <p className={css.tools} style={{ justifyContent: "center", marginTop: 14 }}><Button disabled={events.isFetchingNextPage} onClick={() => void events.fetchNextPage()}>Show what was before</Button></p>}
        </>
      ))}
    </>
  );
}

function Line({ event }: { event: Event }) {
  const tone = eventTone(event);
  return (
    <li>
      <time dateTime={new Date(event.time_s * 1000).toISOString()}>{clock(event.time_s)}</time>
      <span className={css.mark} data-tone={tone} />
      <span className={css.told} data-tone={tone}>{inWords(event)}</span>
      <small>step {event.step.toLocaleString("en")}</small>
    </li>
  );
}

function days(events: readonly Event[]): [string, Event[]][] {
  const found = new Map<string, Event[]>();
  for (const event of events) found.set(day(event.time_s), [...(found.get(day(event.time_s)) ?? []), event]);
  return [...found];
}
