// The few parts that every view is made of.
import { type ButtonHTMLAttributes, type ReactNode, useEffect, useId, useRef, useState } from "react";
import { ApiError } from "../api/client";
import type { Figure, JobState } from "../api/types";
import { capital, JOB_TONES, type Tone } from "../words";
import css from "./parts.module.css";

export const classes = (...names: (string | false | undefined)[]) => names.filter(Boolean).join(" ");

export function Badge({ tone, pulses, children }: { tone: Tone; pulses?: boolean; children: ReactNode }) {
  return <span className={classes(css.badge, css[tone], pulses && css.pulse)}>{children}</span>;
}

export function StateBadge({ state }: { state: JobState }) {
  return <Badge tone={JOB_TONES[state]} pulses={state === "running" || state === "launching"}>{capital(state)}</Badge>;
}

export function Dot({ tone, children }: { tone: Tone; children: ReactNode }) {
  return <span className={classes(css.dot, css[tone])}>{children}</span>;
}

interface CardProps {
  title?: ReactNode;
  side?: ReactNode;
  flush?: boolean;
  className?: string;
  children: ReactNode;
}

export function Card({ title, side, flush, className, children }: CardProps) {
  const id = useId();
  return (
    <section className={classes(css.card, className)} aria-labelledby={title ? id : undefined}>
      {title && (
        <div className={css.cardHead}>
          <h2 id={id}>{title}</h2>
          {side}
        </div>
      )}
      {flush ? children : <div className={css.cardBody}>{children}</div>}
    </section>
  );
}

/** What may be wider than its place; with the keyboard it is scrolled like anything else. */
export function Scroll({ label, children }: { label: string; children: ReactNode }) {
  return <div className={css.scroll} tabIndex={0} role="region" aria-label={label}>{children}</div>;
}

interface ButtonProps extends ButtonHTMLAttributes<HTMLButtonElement> {
  kind?: "primary" | "danger" | "plain";
  small?: boolean;
}

export function Button({ kind, small, className, type = "button", ...rest }: ButtonProps) {
  return <button type={type} className={classes(css.button, kind && css[kind], small && css.small, className)} {...rest} />;
}

export function Progress({ value, max, tone = "active", label }: { value: number; max: number; tone?: Tone; label: string }) {
  const share = max > 0 ? Math.min(1, value / max) : 0;
  return (
    <div
      className={classes(css.progress, css[tone])} role="progressbar" aria-label={label} aria-valuenow={value}
      aria-valuemin={0} aria-valuemax={max}
    >
      <span style={{ width: `${share * 100}%` }} />
    </div>
  );
}

/** A curve without axes; as wide as its place where no width is given. For people who do not see it: its last value. */
export function Sparkline({ values, width, height = 24, label }: {
  values: readonly Figure[]; width?: number; height?: number; label: string;
}) {
  const points = values.flatMap((value, index) => (value === null ? [] : [[index, value] as const]));
  if (points.length < 2) return null;
  const least = Math.min(...points.map(([, value]) => value));
  const most = Math.max(...points.map(([, value]) => value));
  const x = (index: number) => (index / (values.length - 1)) * 100;
  const y = (value: number) => height - 3 - ((value - least) / (most - least || 1)) * (height - 6);
  const line = points.map(([index, value], at) => `${at ? "L" : "M"}${x(index).toFixed(2)} ${y(value).toFixed(1)}`).join("");
  const [lastX, lastY] = points.at(-1)!;
  return (
    <span className={css.spark} style={{ width: width ?? "auto", height }} role="img" aria-label={label}>
      <svg viewBox={`0 0 100 ${height}`} preserveAspectRatio="none" aria-hidden="true">
        <path className={css.area} d={`${line}L${x(lastX).toFixed(2)} ${height}L${x(points[0]![0]).toFixed(2)} ${height}Z`} />
        <path d={line} />
      </svg>
      <i style={{ left: `${x(lastX)}%`, top: y(lastY) }} />
    </span>
  );
}

export function Empty({ title, children, action }: { title: string; children?: ReactNode; action?: ReactNode }) {
  return (
    <div className={css.empty}>
      <strong>{title}</strong>
      {children && <p>{children}</p>}
      {action && <div>{action}</div>}
    </div>
  );
}

export function Note({ tone, children, action }: { tone: Tone; children: ReactNode; action?: ReactNode }) {
  return (
    <div className={classes(css.note, css[tone])} role={tone === "bad" ? "alert" : "status"}>
      <span>{children}</span>
      {action}
    </div>
  );
}

export function sentenceOf(error: unknown): string {
  return error instanceof Error ? capital(error.message) : "Something went wrong.";
}

export function ErrorNote({ error, retry }: { error: unknown; retry?: () => void }) {
  const request = error instanceof ApiError && error.status >= 500 ? ` (request ${error.problem.request_id})` : "";
  return (
    <Note tone="bad" action={retry && <Button small onClick={retry}>Try again</Button>}>
      {sentenceOf(error)}{request}
    </Note>
  );
}

export function Skeleton({ lines = 4 }: { lines?: number }) {
  return (
    <div className={css.skeleton} role="status" aria-label="Loading">
      {Array.from({ length: lines }, (_, index) => <span key={index} style={{ width: `${92 - ((index * 17) % 40)}%` }} />)}
    </div>
  );
}

interface Loaded {
  isPending: boolean;
  error: unknown;
  data: unknown;
  refetch: () => unknown;
}

/** What to show instead while there is nothing to show, or null. What was fetched before stays on the page. */
export function notYet(query: Loaded, lines?: number): ReactNode | null {
  if (query.data !== undefined) return null;
  if (query.error) return <div className={css.cardBody}><ErrorNote error={query.error} retry={() => void query.refetch()} /></div>;
  return <Skeleton lines={lines} />;
}

export function Segments<Value extends string>({ label, value, options, onChange, disabled }: {
  label: string; value: Value; options: readonly (readonly [Value, string])[]; onChange: (value: Value) => void; disabled?: boolean;
}) {
  return (
    <div className={css.segments} role="group" aria-label={label}>
      {options.map(([each, text]) => (
        <button key={each} type="button" aria-pressed={each === value} disabled={disabled} onClick={() => onChange(each)}>{text}</button>
      ))}
    </div>
  );
}

export function Stepper({ label, value, min = 1, max = 10_000, disabled, onChange }: {
  label: string; value: number; min?: number; max?: number; disabled?: boolean; onChange: (value: number) => void;
}) {
  const [text, setText] = useState(String(value));
  useEffect(() => setText(String(value)), [value]);
  const bounded = (next: number) => Math.min(max, Math.max(min, Math.round(next)));
  const commit = () => {
    const next = Number(text);
    if (text !== "" && Number.isFinite(next) && bounded(next) !== value) onChange(bounded(next));
    else setText(String(value));
  };
  return (
    <span className={css.stepper} role="group" aria-label={label}>
      <button type="button" aria-label="One less" disabled={disabled || value <= min} onClick={() => onChange(bounded(value - 1))}>−</button>
      <input
        type="number" inputMode="numeric" aria-label={label} min={min} max={max} value={text} disabled={disabled}
        onChange={(event) => setText(event.target.value)} onBlur={commit}
        onKeyDown={(event) => event.key === "Enter" && commit()}
      />
      <button type="button" aria-label="One more" disabled={disabled || value >= max} onClick={() => onChange(bounded(value + 1))}>+</button>
    </span>
  );
}

/** Asks before something that cannot be taken back. The browser keeps the focus inside, and Escape closes it. */
export function Confirm({ title, children, action, danger, onClose }: {
  title: string; children: ReactNode; action: string; danger?: boolean; onClose: (isMeant: boolean) => void;
}) {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    dialog.current?.showModal();
  }, []);
  return (
    <dialog ref={dialog} className={css.dialog} aria-labelledby={id} onCancel={() => onClose(false)}>
      <h2 id={id}>{title}</h2>
      <p>{children}</p>
      <div className={css.dialogButtons}>
        <Button onClick={() => onClose(false)}>Back</Button>
        <Button kind={danger ? "danger" : "primary"} onClick={() => onClose(true)}>{action}</Button>
      </div>
    </dialog>
  );
}

export function Bar({ share, label }: { share: Figure; label: string }) {
  if (share === null) return null;
  return <span className={css.bar} role="img" aria-label={label}><span style={{ width: `${Math.min(1, share) * 100}%` }} /></span>;
}

export { css as parts };
