// Which view an address shows, and the login before all of them.
import { useQueryClient } from "@tanstack/react-query";
import { lazy, Suspense, useEffect, useState } from "react";
import { Navigate, Route, Routes, useLocation } from "react-router";
import { ApiError } from "./api/client";
import { useMe } from "./api/queries";
import type { Me } from "./api/types";
import { Live } from "./live/Live";
import { Broken } from "./parts/Broken";
import { Empty, Skeleton } from "./parts/parts";
import { Shell } from "./Shell";
import { ClusterView } from "./views/Cluster";
import { JobView } from "./views/job/Job";
import { Checkpoints } from "./views/job/Checkpoints";
import { Config } from "./views/job/Config";
import { Logs } from "./views/job/Logs";
import { Overview } from "./views/job/Overview";
import { Samples } from "./views/job/Samples";
import { Timeline } from "./views/job/Timeline";
import { Workers } from "./views/job/Workers";
import { Jobs } from "./views/Jobs";
import { Login, tokenInAddress } from "./views/Login";
import { NewJob } from "./views/NewJob";

// uPlot is a third of the page, and the list of jobs does not need it.
const Charts = lazy(() => import("./views/job/Charts"));
const Tokens = lazy(() => import("./views/Tokens"));
const LabelSets = lazy(() => import("./views/label/Sets"));
const LabelSetView = lazy(() => import("./views/label/Set"));
const Judge = lazy(() => import("./views/label/Judge"));
const Statistics = lazy(() => import("./views/label/Statistics"));
const Compare = lazy(() => import("./views/Compare"));

export function App() {
  const client = useQueryClient();
  const { pathname } = useLocation();
  const [isOpening, setOpening] = useState(() => tokenInAddress() !== null);
  // Asked while a session is being opened, who one is would still be nobody.
  const me = useMe(!isOpening);
  const isUnknown = me.error instanceof ApiError && me.error.status === 401;
  const opened = async (who: Me) => {
    await client.cancelQueries({ queryKey: ["me"] });
    client.setQueryData(["me"], who);
    setOpening(false);
  };
  if (isUnknown || isOpening) return <Login onDone={(who) => void opened(who)} />;
  if (me.isPending) return <Skeleton />;
  if (!me.data) return <Empty title="The service does not answer">This page asks again by itself. Jobs go on meanwhile.<Reask ask={me.refetch} /></Empty>;
  return (
    <Live>
      <Shell me={me.data}>
        <Broken at={pathname}>
          <Suspense fallback={<Skeleton />}>
            <Routes>
              <Route index element={<Navigate to="/jobs" replace />} />
              <Route path="login" element={<Navigate to="/jobs" replace />} />
              <Route path="jobs" element={<Jobs />} />
              <Route path="jobs/new" element={<NewJob />} />
              <Route path="compare" element={<Compare />} />
              <Route path="label" element={<LabelSets />} />
              <Route path="label/:name" element={<LabelSetView me={me.data} />}>
                <Route index element={<Judge />} />
                <Route path="statistics" element={<Statistics />} />
              </Route>
              <Route path="cluster" element={<ClusterView />} />
              <Route path="tokens" element={<Tokens me={me.data} />} />
              <Route path="jobs/:id" element={<JobView me={me.data} />}>
                <Route index element={<Overview />} />
                <Route path="charts" element={<Charts />} />
                <Route path="workers" element={<Workers />} />
                <Route path="samples" element={<Samples />} />
                <Route path="logs" element={<Logs />} />
                <Route path="timeline" element={<Timeline />} />
                <Route path="checkpoints" element={<Checkpoints />} />
                <Route path="config" element={<Config />} />
              </Route>
              <Route path="*" element={<Empty title="There is no such page">The address may be old, or mistyped.</Empty>} />
            </Routes>
          </Suspense>
        </Broken>
      </Shell>
    </Live>
  );
}

function Reask({ ask }: { ask: () => unknown }) {
  useEffect(() => {
    const timer = setInterval(ask, 3000);
    return () => clearInterval(timer);
  }, [ask]);
  return null;
}
