"""What a monitoring system reads at `/metrics`: what this process counts, and what the database says of the jobs.

A job's label is `rlhf_job`, because Prometheus keeps `job` for what it scrapes.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rlhf_cluster.service.hub import Hub
from rlhf_cluster.service.store import totals
from rlhf_cluster.service.store.database import Database

SHOWN = (
    "driver/gather_s",
    "driver/staleness_mean",
    "driver/step_s",
    "eval/reward_mean",
    "learner/entropy",
    "learner/kl",
    "learner/tokens_per_s",
    "reward/mean",
    "rollout/tokens_per_s",
)
"""Metrics of running jobs; the API has all."""
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Exposition:
    """Counted since the process began; it has a registry of its own, so that two services can be in one process."""

    def __init__(self, db: Database, hub: Hub) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "rlhf_requests", "Requests that were answered.", ("method", "status"), registry=self._registry
        )
        self._rows = Counter(
            "rlhf_ingested_rows",
            "Rows that relays have sent: entries of journals, lines of logs, samples.",
            ("kind",),
            registry=self._registry,
        )
        ProcessCollector(registry=self._registry)
        self._registry.register(FromDatabase(db, hub))

    def answered(self, method: str, status: int) -> None:
        # Anybody can invent methods, and each would be a series for good.
        self._requests.labels(method if method in METHODS else "other", str(status)).inc()

    def ingested(self, kind: str, num_rows: int) -> None:
        self._rows.labels(kind).inc(num_rows)

    def text(self) -> bytes:
        return generate_latest(self._registry)


class FromDatabase(Collector):
    """Read anew whenever it is asked for, so that every process of a service tells the same."""

    def __init__(self, db: Database, hub: Hub) -> None:
        self._db = db
        self._hub = hub

    def collect(self) -> Iterator[Metric]:
        with self._db.reading() as connection:
            states = totals.jobs_by_state(connection)
            steps = totals.steps_of_running(connection)
            metrics = totals.metrics_of_running(connection, SHOWN)
        streams = GaugeMetricFamily("rlhf_event_streams", "Event streams that are open.")
        streams.add_metric((), self._hub.num_listeners)
        yield streams
        by_state = GaugeMetricFamily("rlhf_jobs", "Jobs by state.", labels=("state",))
        for state, num in sorted(states.items()):
            by_state.add_metric((state,), num)
        yield by_state
        step = GaugeMetricFamily("rlhf_job_step", "The step a running job is at.", labels=("rlhf_job",))
        for job_id, at in steps.items():
            step.add_metric((job_id,), at)
        yield step
        newest = GaugeMetricFamily("rlhf_job_metric", "Newest values of running jobs.", labels=("rlhf_job", "key"))
        for row in metrics:
            newest.add_metric((row.job_id, row.key), row.value)
        yield newest
