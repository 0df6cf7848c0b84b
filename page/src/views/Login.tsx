// A token for a session: from the address, where `rlhf up` put it, or pasted.
import { type FormEvent, useEffect, useRef, useState } from "react";
import { send } from "../api/client";
import type { Me } from "../api/types";
import { Button, ErrorNote, parts } from "../parts/parts";
import css from "./views.module.css";

/** `#token=...`: a fragment is never sent to a server, so it is in no log. */
export function tokenInAddress(): string | null {
  return new URLSearchParams(location.hash.slice(1)).get("token");
}

export function Login({ onDone }: { onDone: (who: Me) => void }) {
  const [token, setToken] = useState("");
  const [error, setError] = useState<unknown>(null);
  const [isBusy, setBusy] = useState(false);
  const tried = useRef<string | null>(null);

  const open = async (secret: string) => {
    setBusy(true);
    setError(null);
    try {
      onDone(await send<Me>("POST", "/auth/session", { body: { token: secret.trim() } }));
    } catch (refused) {
      setError(refused);
    } finally {
      setBusy(false);
    }
  };

  useEffect(() => {
    document.title = "Log in · rlhf_cluster";
    const look = () => {
      const given = tokenInAddress();
      if (!given || given === tried.current) return;
      tried.current = given;
      history.replaceState(null, "", location.pathname + location.search);
      void open(given);
    };
    look();
    // An address with a token, pasted into a tab that shows this already, loads nothing anew.
    window.addEventListener("hashchange", look);
    return () => window.removeEventListener("hashchange", look);
  }, []);

  const submit = (event: FormEvent) => {
    event.preventDefault();
    void open(token);
  };
  return (
    <main className={css.login}>
      <form onSubmit={submit}>
        <h1>Log in to rlhf_cluster</h1>
        <p>Paste a token. <code>rlhf up</code> prints an address that holds one; an admin makes others with <code>rlhf token create</code>.</p>
        {error !== null && <ErrorNote error={error} />}
        <label className={parts.field}>
          <span>Token</span>
          <input
            className={parts.input} type="password" name="token" autoComplete="current-password" spellCheck={false} required
            autoFocus value={token} onChange={(event) => setToken(event.target.value)}
          />
        </label>
        <Button type="submit" kind="primary" disabled={isBusy || token === ""}>{isBusy ? "Logging in …" : "Log in"}</Button>
      </form>
    </main>
  );
}
