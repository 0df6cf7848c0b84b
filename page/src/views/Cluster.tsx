// What Ray says it has, and what of it is taken.
import { useCluster } from "../api/queries";
import { bytes, count } from "../format";
import { Card, Dot, Empty, Note, notYet, parts, Progress, Scroll } from "../parts/parts";
import { useTitle } from "../Shell";
import { capital } from "../words";
import css from "./views.module.css";

const isBytes = (name: string) => name === "memory" || name === "object_store_memory";
const shown = (name: string, value: number) => (isBytes(name) ? bytes(value) : count(value));

export function ClusterView() {
  useTitle("Cluster");
  const cluster = useCluster();
  const has = cluster.data;
  return (
    <>
      <div className={css.head}><h1>Cluster</h1>{has?.address && <code>{has.address}</code>}</div>
      {notYet(cluster) ?? (has && (
        <div className={css.cluster}>
          {!has.is_reachable && <Note tone="warning">{capital(has.reason || "Ray cannot be reached")}. Jobs stay queued until there is one that answers.</Note>}
          <div className={css.resources}>
            {Object.entries(has.total).filter(([name]) => !name.includes(":")).map(([name, total]) => (
              <Card key={name} className={css.resource}>
                <p className={parts.hint}>{name.replaceAll("_", " ")}</p>
                <p><b>{shown(name, has.used[name] ?? 0)}</b> of {shown(name, total)} taken</p>
                <Progress value={has.used[name] ?? 0} max={total} label={name} />
              </Card>
            ))}
          </div>
          <Card title="Nodes" flush>
            {has.nodes.length === 0 ? <Empty title="No nodes known">{has.is_reachable ? "Ray named none." : "They are listed as soon as Ray answers."}</Empty> : (
              <Scroll label="Nodes">
                <table className={parts.table}>
                  <thead><tr><th scope="col">Node</th><th scope="col">State</th><th scope="col">Resources</th></tr></thead>
                  <tbody>
                    {has.nodes.map((node) => (
                      <tr key={node.node_id}>
                        <td><code>{node.node_id.slice(0, 16)}</code></td>
                        <td><Dot tone={node.state.toLowerCase() === "alive" ? "good" : "bad"}>{node.state.toLowerCase()}</Dot></td>
                        <td>{Object.entries(node.resources).filter(([name]) => !name.includes(":")).map(([name, value]) => `${shown(name, value)} ${name.replaceAll("_", " ")}`).join(" · ")}</td>
                      </tr>
                    ))}
                  </tbody>
                </table>
              </Scroll>
            )}
          </Card>
        </div>
      ))}
    </>
  );
}
