// One set of pairs: how far it is, and its two parts, judging and what is known of the labels.
import { Link, NavLink, Outlet, useOutletContext, useParams } from "react-router";
import { address, ApiError } from "../../api/client";
import { exportPath, useLabelSet } from "../../api/labels";
import type { LabelSet, Me } from "../../api/types";
import { Empty, notYet, parts, Progress } from "../../parts/parts";
import { useTitle } from "../../Shell";
import job from "../job/job.module.css";

export interface SetContext {
  set: LabelSet;
  me: Me;
}
export const useSetContext = () => useOutletContext<SetContext>();

export default function LabelSetView({ me }: { me: Me }) {
  const name = useParams().name!;
  const set = useLabelSet(name);
  useTitle(`Label ${name}`);
  if (!set.data && set.error instanceof ApiError && set.error.status === 404) {
    return <Empty title="There is no such label set" action={<Link to="/label">All label sets</Link>}>It may have been removed, or the address is mistyped.</Empty>;
  }
  if (!set.data) return notYet(set, 6);
  return (
    <>
      <Head set={set.data} />
      <nav aria-label="Parts of the label set" className={job.tabs}>
        <NavLink to="" end>Judge</NavLink>
        <NavLink to="statistics">Statistics</NavLink>
      </nav>
      <Outlet context={{ set: set.data, me } satisfies SetContext} />
    </>
  );
}

function Head({ set }: { set: LabelSet }) {
  const { num_done, num_pairs, num_labels, overlap } = set;
  return (
    <div className={job.head}>
      <p className={job.crumbs}><Link to="/label">Label</Link><span aria-hidden="true">/</span><span>made by {set.created_by}</span></p>
      <div className={job.title}>
        <h1>{set.name}</h1>
        <span className={job.actions}><a className={`${parts.button} ${parts.small}`} href={address(exportPath(set.name))} download>Export</a></span>
      </div>
      <div className={job.progress}>
        <Progress value={num_done} max={num_pairs} tone={num_done === num_pairs ? "good" : "active"} label="Pairs that are done" />
        <dl className={job.facts}>
          <div><dt>Done</dt><dd>{num_done.toLocaleString("en")} of {num_pairs.toLocaleString("en")} pairs</dd></div>
          <div><dt>Labels</dt><dd>{num_labels.toLocaleString("en")} of {(num_pairs * overlap).toLocaleString("en")}</dd></div>
          <div><dt>Wanted of each pair</dt><dd>{overlap}</dd></div>
        </dl>
      </div>
    </div>
  );
}
