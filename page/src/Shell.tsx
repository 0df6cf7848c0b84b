// What surrounds every view: where one can go, who one is, light or dark, and a word when the service is away.
import { useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useEffect, useState } from "react";
import { Link, NavLink, useLocation } from "react-router";
import { send } from "./api/client";
import { useVersion } from "./api/queries";
import type { Me } from "./api/types";
import { useLive } from "./live/Live";
import { Button, classes } from "./parts/parts";
import css from "./Shell.module.css";

export function Shell({ me, children }: { me: Me; children: ReactNode }) {
  const version = useVersion();
  const client = useQueryClient();
  const live = useLive();
  const mayRun = me.scopes.some((scope) => scope === "submit" || scope === "admin");
  const leave = async () => {
    await send("DELETE", "/auth/session").catch(() => {});
    client.clear();
    location.reload();
  };
  return (
    <>
      <a className={css.skip} href="#main" onClick={skip}>Skip to the content</a>
      <header className={css.header}>
        <Link to="/jobs" className={css.brand}>
          <svg viewBox="0 0 32 32" width="22" height="22" aria-hidden="true">
            <rect width="32" height="32" rx="8" fill="var(--accent)" />
            <path d="M7 22c4 0 4-6 8-6s4 3 6 0 1-6 4-6" fill="none" stroke="var(--accent-ink)" strokeWidth="2.6" strokeLinecap="round" />
            <circle cx="25" cy="10" r="2.6" fill="var(--accent-ink)" />
          </svg>
          <span>rlhf_cluster</span>
        </Link>
        <nav aria-label="Main" className={css.nav}>
          <NavLink to="/jobs" end className={({ isActive }) => classes(isActive && css.here)}>Jobs</NavLink>
          <NavLink to="/compare">Compare</NavLink>
          <NavLink to="/label">Label</NavLink>
          <NavLink to="/cluster">Cluster</NavLink>
          {me.scopes.includes("admin") && <NavLink to="/tokens">Tokens</NavLink>}
        </nav>
        <div className={css.side}>
          <span className={css.live} data-live={live} title={LIVE[live]}><span className={css.word}>{live === "live" ? "Live" : live === "away" ? "Away" : "…"}</span></span>
          {mayRun && <Link className={css.newJob} to="/jobs/new">New job</Link>}
          <Theme />
          <details className={css.menu} onBlur={closeMenu}>
            <summary aria-label={`Signed in as ${me.name}`}>{me.name}</summary>
            <div>
              <p>{me.name}<br /><small>may {me.scopes.join(", ")}</small></p>
              {version.data && <p><small>rlhf_cluster {version.data.version}</small></p>}
              <Button small onClick={() => void leave()}>Log out</Button>
            </div>
          </details>
        </div>
      </header>
      <Away />
      <main id="main" tabIndex={-1} className={css.main}>{children}</main>
    </>
  );
}

const LIVE = {
  live: "Changes arrive by themselves",
  away: "The connection is broken; trying again",
  connecting: "Connecting",
};

/** With <base>, `#main` would be another page. */
function skip(event: React.MouseEvent): void {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

function closeMenu(event: React.FocusEvent<HTMLDetailsElement>): void {
  if (!event.currentTarget.contains(event.relatedTarget)) event.currentTarget.open = false;
}

const PATIENCE_MS = 1500;

function Away() {
  const live = useLive();
  const [isShown, setShown] = useState(false);
  useEffect(() => {
    if (live !== "away") return setShown(false);
    const timer = setTimeout(() => setShown(true), PATIENCE_MS);
    return () => clearTimeout(timer);
  }, [live]);
  if (!isShown) return null;
  return (
    <div className={css.away} role="alert">
      The service is away. Jobs go on without it; this page shows what it knew last and goes on by itself when it is back.
    </div>
  );
}

type Choice = "system" | "light" | "dark";
const NEXT: Record<Choice, Choice> = { system: "light", light: "dark", dark: "system" };

function Theme() {
  const [choice, setChoice] = useState<Choice>(() => (document.documentElement.dataset.theme as Choice) ?? "system");
  const change = () => {
    const next = NEXT[choice];
    setChoice(next);
    if (next === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    try {
      if (next === "system") localStorage.removeItem("theme");
      else localStorage.setItem("theme", next);
    } catch {
      // Storage is forbidden: the choice holds until the tab is closed.
    }
    window.dispatchEvent(new CustomEvent("theme"));
  };
  const text = { system: "as the system", light: "light", dark: "dark" }[choice];
  return (
    <Button kind="plain" className={css.theme} onClick={change} aria-label={`Colours: ${text}. Change`} title={`Colours: ${text}`}>
      <svg viewBox="0 0 16 16" width="16" height="16" fill="none" stroke="currentColor" strokeWidth="1.4" aria-hidden="true">
        {choice === "light" && <><circle cx="8" cy="8" r="3" /><path d="M8 1v2M8 13v2M1 8h2M13 8h2M3 3l1.4 1.4M11.6 11.6 13 13M13 3l-1.4 1.4M4.4 11.6 3 13" /></>}
        {choice === "dark" && <path d="M13.5 9.6A6 6 0 0 1 6.4 2.5a6 6 0 1 0 7.1 7.1Z" />}
        {choice === "system" && <><circle cx="8" cy="8" r="6" /><path d="M8 2a6 6 0 0 1 0 12Z" fill="currentColor" stroke="none" /></>}
      </svg>
    </Button>
  );
}

/** The title of the tab follows the view, and the top of it is shown. */
export function useTitle(title: string): void {
  const { pathname } = useLocation();
  useEffect(() => {
    document.title = `${title} · rlhf_cluster`;
  }, [title]);
  useEffect(() => {
    window.scrollTo(0, 0); // newer browsers return a promise, which is no way to clean up
  }, [pathname]);
}
