// Sets of pairs that people judge, newest first.
import { Link } from "react-router";
import { useLabelSets } from "../../api/labels";
import type { LabelSet } from "../../api/types";
import { ago, moment } from "../../format";
import { Button, Card, Empty, notYet, parts, Progress, Scroll } from "../../parts/parts";
import { useNow } from "../../parts/now";
import { useTitle } from "../../Shell";
import views from "../views.module.css";
import css from "./label.module.css";

export default function LabelSets() {
  useTitle("Label");
  const sets = useLabelSets();
  const rows = sets.data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <>
      <div className={views.head}><h1>Label</h1></div>
      <Card flush>
        {notYet(sets, 4) ?? (rows.length === 0 ? (
          <Empty title="Nothing to label yet">A set of pairs comes from a file of JSON lines: <code>rlhf label add NAME pairs.jsonl</code></Empty>
        ) : (
          <Scroll label="Label sets">
            <table className={`${parts.table} ${css.sets}`}>
              <caption className={parts.hidden}>Label sets, newest first</caption>
              <thead>
                <tr>
                  <th scope="col">Set</th><th scope="col">Pairs done</th><th scope="col" className={parts.num}>Labels</th>
                  <th scope="col" className={parts.num}>Wanted of each</th><th scope="col">Made by</th><th scope="col" className={parts.num}>Made</th>
                </tr>
              </thead>
              <tbody>{rows.map((each) => <Row key={each.name} set={each} />)}</tbody>
            </table>
          </Scroll>
        ))}
        {sets.hasNextPage && (
          <div className={views.more}><Button small disabled={sets.isFetchingNextPage} onClick={() => void sets.fetchNextPage()}>Show older sets</Button></div>
        )}
      </Card>
    </>
  );
}

function Row({ set }: { set: LabelSet }) {
  const now_s = useNow();
  return (
    <tr>
      <td><Link to={`/label/${set.name}`} className={views.jobName}>{set.name}</Link></td>
      <td className={views.progressCell}>
        <div className={views.steps}><span>{set.num_done.toLocaleString("en")} / {set.num_pairs.toLocaleString("en")}</span><span>{Math.floor((100 * set.num_done) / Math.max(1, set.num_pairs))} %</span></div>
        <Progress value={set.num_done} max={set.num_pairs} tone={set.num_done === set.num_pairs ? "good" : "active"} label={`Pairs of ${set.name}`} />
      </td>
      <td className={parts.num}>{set.num_labels.toLocaleString("en")}</td>
      <td className={parts.num}>{set.overlap}</td>
      <td>{set.created_by}</td>
      <td className={parts.num}><time dateTime={new Date(set.created_s * 1000).toISOString()} title={moment(set.created_s)}>{ago(set.created_s, now_s)}</time></td>
    </tr>
  );
}
