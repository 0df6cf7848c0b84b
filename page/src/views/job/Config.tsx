// What the job was told: first what differs from the defaults, then everything, then the file as it was submitted.
import { useState } from "react";
import { Card, Empty, parts } from "../../parts/parts";
import { flat, written } from "../../toml";
import { useJobContext } from "./Job";
import css from "./job.module.css";

export function Config() {
  const { job } = useJobContext();
  const [find, setFind] = useState("");
  const changed = flat(job.changed);
  const names = new Set(changed.map(([key]) => key));
  const all = flat(job.config).filter(([key, value]) => `${key} ${written(value)}`.toLowerCase().includes(find.toLowerCase()));
  return (
    <div className={css.config}>
      <div className={css.stack}>
        <Card title="What differs from the defaults" flush>
          {changed.length === 0 ? <Empty title="Nothing differs">Every setting has its default.</Empty> : <Keys rows={changed} />}
        </Card>
        <Card title="The job file, as it was submitted" flush>
          <pre className={css.source} tabIndex={0} aria-label="Job file">{job.source}</pre>
        </Card>
      </div>
      <Card
        title="Everything" flush
        side={<input className={`${parts.input} ${parts.small}`} type="search" placeholder="Part of a key or value" aria-label="Search the config" value={find} onChange={(event) => setFind(event.target.value)} />}
      >
        {all.length === 0 ? <Empty title="No setting matches" /> : <div className={css.tall} tabIndex={0} aria-label="All settings"><Keys rows={all} differs={names} /></div>}
      </Card>
    </div>
  );
}

function Keys({ rows, differs }: { rows: [string, unknown][]; differs?: Set<string> }) {
  return (
    <table className={`${parts.table} ${css.keys}`}>
      <thead className={parts.hidden}><tr><th scope="col">Key</th><th scope="col">Value</th></tr></thead>
      <tbody>
        {rows.map(([key, value]) => (
          <tr key={key} data-differs={differs?.has(key) || undefined}><td>{key}</td><td>{written(value)}</td></tr>
        ))}
      </tbody>
    </table>
  );
}
