// The policies that were kept.
import { newKey } from "../../api/client";
import { useCheckpoints, useVerb } from "../../api/queries";
import { ago, moment } from "../../format";
import { Button, Card, Empty, notYet, parts, Scroll, sentenceOf } from "../../parts/parts";
import { useNow } from "../../parts/now";
import { useSay } from "../../parts/say";
import { useJobContext } from "./Job";

export function Checkpoints() {
  const { job, mayRun } = useJobContext();
  const checkpoints = useCheckpoints(job.job_id);
  const verb = useVerb(job.job_id);
  const say = useSay();
  const now_s = useNow();
  const mayAsk = mayRun && (job.state === "running" || job.state === "paused");
  const ask = () =>
    verb.mutate({ verb: "checkpoint", key: newKey() }, {
      onSuccess: () => say("A checkpoint is written after the step under way."),
      onError: (error) => say(sentenceOf(error), "bad"),
    });
  const copy = async (path: string) => {
    try {
      await navigator.clipboard.writeText(path);
      say("The path was copied.");
    } catch {
      say("The browser does not let this page copy; mark the path instead.", "warning");
    }
  };
  const rows = [...(checkpoints.data ?? [])].sort((a, b) => b.step - a.step);
  return (
    <Card title="Checkpoints" flush side={<><span className={parts.hint}>only the last ones stay on disk, see <code>checkpoint.keep</code></span>{mayAsk && <Button small disabled={verb.isPending} onClick={ask}>Write one now</Button>}</>}>
      {notYet(checkpoints, 3) ?? (rows.length === 0 ? (
        <Empty title="No checkpoint yet">One is written every few steps, as the job's config says, and always after the last step.</Empty>
      ) : (
        <Scroll label="Checkpoints">
          <table className={parts.table}>
            <thead><tr><th scope="col" className={parts.num}>Step</th><th scope="col">Path</th><th scope="col" className={parts.num}>Written</th><th scope="col"><span className={parts.hidden}>Copy</span></th></tr></thead>
            <tbody>
              {rows.map((each) => (
                <tr key={each.step}>
                  <td className={parts.num} style={{ width: 80 }}>{each.step.toLocaleString("en")}</td>
                  <td className={parts.nowrap}><code>{each.path}</code></td>
                  <td className={parts.num} title={moment(each.time_s)}>{ago(each.time_s, now_s)}</td>
                  <td className={parts.num}><Button small kind="plain" aria-label={`Copy the path of step ${each.step}`} onClick={() => void copy(each.path)}>Copy path</Button></td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      ))}
    </Card>
  );
}
