"""What jobs measure: the newest values, series that are fetched piece by piece, and one metric of many jobs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import Field

from rlhf_cluster.service import existing
from rlhf_cluster.service.auth import Reader
from rlhf_cluster.service.shared import SharedRoute
from rlhf_cluster.service.store import metrics
from rlhf_cluster.wire.figures import Latest, Series, SeriesSet

router = APIRouter(tags=["metrics"], route_class=SharedRoute)

MAX_STEP = 2**31 - 1

MetricKey = Annotated[str, Field(max_length=200)]
MaxPoints = Annotated[
    int, Query(ge=1, le=10_000, description="Of a series with more, stretches of steps become one point each.")
]


@router.get("/jobs/{job_id}/metrics")
def show_metrics(request: Request, caller: Reader, job_id: str) -> Latest:
    """The newest value of every metric; `step` is -1 where there is none yet."""
    with request.app.state.service.db.reading() as connection:
        existing.job(connection, job_id)
        values, step = metrics.latest(connection, job_id)
    return Latest(values=values, step=step)


@router.get("/jobs/{job_id}/metrics/series")
def show_series(
    request: Request,
    caller: Reader,
    job_id: str,
    key: Annotated[list[MetricKey], Query(min_length=1, max_length=100)],
    after_step: Annotated[int, Query(ge=-1, le=MAX_STEP)] = -1,
    max_points: MaxPoints = 2000,
) -> SeriesSet:
    """One for each key, in that order, empty for a key that the job has not. For what came since, ask with
    `after_step` of the last answer's `last_step`: its points replace those of the same steps."""
    with request.app.state.service.db.reading() as connection:
        existing.job(connection, job_id)
        series = metrics.series(connection, job_id, key, after_step=after_step, max_points=max_points)
    newest = max((each.steps[-1] for each in series if each.steps), default=-1)
    # The newest step is sent again next time: an evaluation follows the step it is about.
    return SeriesSet(series=series, last_step=max(after_step, newest - 1))


@router.get("/metrics/compare")
def compare_metrics(
    request: Request,
    caller: Reader,
    job: Annotated[list[str], Query(min_length=1, max_length=50, description="Ids.")],
    key: MetricKey,
    max_points: MaxPoints = 2000,
) -> dict[str, Series]:
    """One metric of several jobs, by their ids."""
    with request.app.state.service.db.reading() as connection:
        for job_id in job:
            existing.job(connection, job_id)
        return {job_id: metrics.series(connection, job_id, [key], max_points=max_points)[0] for job_id in job}
