// Who may do what: tokens of people and programs, handed out and revoked by an admin.
import { type FormEvent, useState } from "react";
import { useNewToken, useRevoke, useTokens } from "../api/queries";
import type { Me, Scope, Token } from "../api/types";
import { ago, moment } from "../format";
import { Badge, Button, Card, Confirm, Empty, ErrorNote, notYet, parts, Scroll, sentenceOf } from "../parts/parts";
import { useNow } from "../parts/now";
import { useSay } from "../parts/say";
import { useTitle } from "../Shell";
import css from "./views.module.css";

const SCOPES: readonly (readonly [scope: Scope, means: string])[] = [
  ["read", "sees everything, changes nothing"], ["label", "reads, and labels completions"],
  ["submit", "runs code on the cluster"], ["admin", "hands out tokens too"],
];
const DAY_S = 86_400;
const LASTS: readonly (readonly [name: string, days: number | null])[] = [["30 days", 30], ["a year", 365], ["until revoked", null]];

export default function Tokens({ me }: { me: Me }) {
  useTitle("Tokens");
  const isAdmin = me.scopes.includes("admin");
  const tokens = useTokens(isAdmin);
  if (!isAdmin) return <Empty title="Only an admin sees tokens">You may {me.scopes.join(", ")}.</Empty>;
  const rows = [...(tokens.data ?? [])].sort((a, b) => Number(isOver(a)) - Number(isOver(b)) || b.created_s - a.created_s);
  return (
    <>
      <div className={css.head}><h1>Tokens</h1></div>
      <div className={css.cluster}>
        <NewOne />
        <Card title="Handed out" flush>
          {notYet(tokens, 4) ?? (rows.length === 0 ? <Empty title="No tokens yet" /> : (
            <Scroll label="Tokens">
              <table className={parts.table}>
                <thead>
                  <tr>
                    <th scope="col">Name</th><th scope="col">May</th><th scope="col">State</th><th scope="col" className={parts.num}>Made</th>
                    <th scope="col" className={parts.num}>Used</th><th scope="col" className={parts.num}>Ends</th><th scope="col"><span className={parts.hidden}>Revoke</span></th>
                  </tr>
                </thead>
                <tbody>{rows.map((token) => <Row key={token.token_id} token={token} />)}</tbody>
              </table>
            </Scroll>
          ))}
        </Card>
      </div>
    </>
  );
}

/** Revoked ones are not listed. */
const isOver = (token: Token) => token.expires_s !== null && token.expires_s * 1000 < Date.now();

function Row({ token }: { token: Token }) {
  const now_s = useNow();
  const revoke = useRevoke();
  const say = useSay();
  const [isAsked, setAsked] = useState(false);
  const close = (isMeant: boolean) => {
    setAsked(false);
    if (isMeant) revoke.mutate(token.token_id, { onSuccess: () => say(`${token.name} is revoked.`), onError: (error) => say(sentenceOf(error), "bad") });
  };
  const state = isOver(token) ? "expired" : "good";
  return (
    <tr>
      <td><b>{token.name}</b> <code className={parts.hint}>{token.token_id}</code></td>
      <td>{token.scopes.join(", ")}</td>
      <td><Badge tone={state === "good" ? "good" : "quiet"}>{state}</Badge></td>
      <td className={parts.num} title={moment(token.created_s)}>{ago(token.created_s, now_s)}</td>
      <td className={parts.num}>{token.last_used_s === null ? "never" : ago(token.last_used_s, now_s)}</td>
      <td className={parts.num}>{token.expires_s === null ? "–" : moment(token.expires_s).slice(0, 16)}</td>
      <td className={parts.num}>
        {state === "good" && <Button small kind="danger" disabled={revoke.isPending} aria-label={`Revoke ${token.name}`} onClick={() => setAsked(true)}>Revoke</Button>}
        {isAsked && <Confirm title={`Revoke ${token.name}?`} action="Revoke it" danger onClose={close}>Whoever uses it is refused from now on. It cannot be taken back; another token can be made.</Confirm>}
      </td>
    </tr>
  );
}

function NewOne() {
  const create = useNewToken();
  const say = useSay();
  const [name, setName] = useState("");
  const [scope, setScope] = useState<Scope>("read");
  const [days, setDays] = useState<number | null>(30);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    const expires_s = days === null ? null : Date.now() / 1000 + days * DAY_S;
    create.mutate({ name: name.trim(), scopes: [scope], expires_s }, { onSuccess: () => setName("") });
  };
  const copy = async (secret: string) => {
    try {
      await navigator.clipboard.writeText(secret);
      say("The token was copied.");
    } catch {
      say("The browser does not let this page copy; mark the token instead.", "warning");
    }
  };
  return (
    <Card title="A new token">
      <form className={css.newToken} onSubmit={submit}>
        <label className={parts.field}><span>For whom</span><input className={parts.input} required maxLength={128} value={name} placeholder="nightly-sweep" onChange={(event) => setName(event.target.value)} /></label>
        <label className={parts.field}><span>May</span>
          <select className={parts.input} value={scope} onChange={(event) => setScope(event.target.value as Scope)}>
            {SCOPES.map(([each, means]) => <option key={each} value={each}>{each}: {means}</option>)}
          </select>
        </label>
        <label className={parts.field}><span>Lasts</span>
          <select className={parts.input} value={days ?? ""} onChange={(event) => setDays(event.target.value ? Number(event.target.value) : null)}>
            {LASTS.map(([text, each]) => <option key={text} value={each ?? ""}>{text}</option>)}
          </select>
        </label>
        <Button type="submit" kind="primary" disabled={create.isPending || !name.trim()}>Make it</Button>
      </form>
      {create.error && <ErrorNote error={create.error} />}
      {create.data && (
        <div className={css.secret} role="status">
          <p>The token of <b>{create.data.name}</b>, shown this once:</p>
          <code tabIndex={0}>{create.data.secret}</code>
          <Button small onClick={() => void copy(create.data.secret)}>Copy</Button>
        </div>
      )}
    </Card>
  );
}
