// Whether labels can be trusted: who agrees with whom, and whether people look at the side instead of the answer.
import type { ReactNode } from "react";
import { useLabelStatistics } from "../../api/labels";
import type { LabelStatistics } from "../../api/types";
import { fixed, percent } from "../../format";
import { favoursSide } from "../../labelling";
import { Card, Empty, notYet, parts, Scroll } from "../../parts/parts";
import job from "../job/job.module.css";
import css from "./label.module.css";
import { useSetContext } from "./Set";

export default function Statistics() {
  const { set } = useSetContext();
  const told = useLabelStatistics(set.name);
  if (!told.data) return notYet(told, 6);
  const all = told.data;
  if (all.num_labels + all.num_skips === 0) return <Card><Empty title="No labels yet">They are counted here as soon as somebody judges a pair.</Empty></Card>;
  return (
    <div className={job.stack}>
      <dl className={job.tiles}>
        <Tile name="Labels" value={all.num_labels.toLocaleString("en")}>{all.num_undone > 0 ? `${all.num_undone} undone` : "none undone"}</Tile>
        <Tile name="Agreement" value={percent(all.agreement)}>of two people about one pair</Tile>
        <Tile name="Median time" value={all.median_s === null ? "–" : `${fixed(all.median_s, 1)} s`}>a label</Tile>
        <Tile name="Ties" value={percent(all.tie_rate)}>of the labels</Tile>
        <Tile name="Skips" value={percent(all.skip_rate)}>{all.num_skips.toLocaleString("en")} of them</Tile>
        <Tile name="Answer 1 chosen" value={percent(all.left_share)}>{percent(all.left_interval[0])} to {percent(all.left_interval[1])} with 95 %</Tile>
      </dl>
      {all.left_share !== null && <SideBias told={all} />}
      <People told={all} />
      {all.pairs_of_labelers.length > 0 && <Agreements told={all} />}
    </div>
  );
}

function Tile({ name, value, children }: { name: string; value: string; children: ReactNode }) {
  return <div className={job.tile}><dt>{name}</dt><dd><span>{value}</span><small>{children}</small></dd></div>;
}

function SideBias({ told }: { told: LabelStatistics }) {
  const [low, high] = told.left_interval;
  const isFavoured = favoursSide(told);
  const sentence = isFavoured
    ? "A half is not within the interval: people choose by where an answer stands, and not only by what it says."
    : "A half is within the interval: nothing says that people choose by where an answer stands.";
  return (
    <Card title="Choices for answer 1, which stands left">
      <div className={css.bias} role="img" aria-label={`${percent(told.left_share)}, between ${percent(low)} and ${percent(high)}`}>
        <span className={css.interval} data-bad={isFavoured} style={{ left: `${low * 100}%`, width: `${(high - low) * 100}%` }} />
        <i className={css.half} />
        <i className={css.share} data-bad={isFavoured} style={{ left: `${(told.left_share ?? 0) * 100}%` }} />
      </div>
      <p className={css.scale} aria-hidden="true"><span>never</span><span>half of them</span><span>always</span></p>
      <p className={job.sentence}>{sentence}</p>
    </Card>
  );
}

function People({ told }: { told: LabelStatistics }) {
  return (
    <Card title="People" flush>
      <Scroll label="People">
        <table className={parts.table}>
          <thead>
            <tr>
              <th scope="col">Who</th><th scope="col" className={parts.num}>Labels</th><th scope="col" className={parts.num}>Ties</th>
              <th scope="col" className={parts.num}>Skips</th><th scope="col" className={parts.num}>Answer 1 chosen</th><th scope="col" className={parts.num}>Median time</th>
            </tr>
          </thead>
          <tbody>
            {told.labelers.map((each) => (
              <tr key={each.labeler}>
                <td><b>{each.labeler}</b></td>
                <td className={parts.num}>{each.num_labels.toLocaleString("en")}</td>
                <td className={parts.num}>{each.num_ties}</td>
                <td className={parts.num}>{each.num_skips}</td>
                <td className={parts.num}>{each.num_left} of {each.num_labels - each.num_ties}</td>
                <td className={parts.num}>{each.median_s === null ? "–" : `${fixed(each.median_s, 1)} s`}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </Card>
  );
}

function Agreements({ told }: { told: LabelStatistics }) {
  return (
    <Card title="Two about one pair" flush side={<span className={parts.hint}>kappa: 1 is perfect, 0 is chance</span>}>
      <Scroll label="Agreement of every two">
        <table className={parts.table}>
          <thead>
            <tr><th scope="col">Both</th><th scope="col" className={parts.num}>Pairs</th><th scope="col" className={parts.num}>Agreement</th><th scope="col" className={parts.num}>Cohen's kappa</th></tr>
          </thead>
          <tbody>
            {told.pairs_of_labelers.map((each) => (
              <tr key={each.labelers.join("\n")}>
                <td>{each.labelers[0]} and {each.labelers[1]}</td>
                <td className={parts.num}>{each.num_pairs.toLocaleString("en")}</td>
                <td className={parts.num}>{percent(each.agreement)}</td>
                <td className={parts.num}>{fixed(each.kappa, 2)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </Card>
  );
}
