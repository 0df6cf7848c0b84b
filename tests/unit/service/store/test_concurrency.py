"""Many at once: nothing is lost, nothing is doubled, and no reader is overtaken."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

from sqlalchemy import func, insert, select

from rlhf_cluster.service.store import answers, events, jobs, logs, metrics, pools
from rlhf_cluster.service.store.database import Database
from rlhf_cluster.service.store.tables import logs as logs_table
from rlhf_cluster.service.store.tables import metrics as metrics_table
from rlhf_cluster.service.store.tables import pools as pools_table
from rlhf_cluster.wire.relay import LogLine

NUM_WRITERS = 6
NUM_EACH = 15


def test_threads_that_write_at_once_lose_nothing(db: Database, submit):
    job_ids = [submit(), submit()]

    def write(writer: int) -> None:
        for number in range(NUM_EACH):
            job_id, step = job_ids[writer % 2], writer * NUM_EACH + number
            line = LogLine(component=f"rollout-{writer}", offset=number, line="", time_s=1.0)
            with db.writing() as connection:
                metrics.add(connection, job_id, step=step, time_s=1.0, values={"a": 1.0, f"own-{writer}": 2.0})
                logs.add(connection, job_id, [line, line])
                row = jobs.get(connection, job_id)
                jobs.took(connection, job_id, num_entries=row.num_entries + 1)

    with ThreadPoolExecutor(NUM_WRITERS) as threads:
        list(threads.map(write, range(NUM_WRITERS)))
    total = NUM_WRITERS * NUM_EACH
    with db.reading() as connection:
        assert connection.execute(select(func.count()).select_from(metrics_table)).scalar_one() == 2 * total
        assert connection.execute(select(func.count()).select_from(logs_table)).scalar_one() == total
        assert [jobs.get(connection, job_id).num_entries for job_id in job_ids] == [total // 2] * 2


def test_a_reader_that_goes_on_after_the_newest_id_misses_no_event(db: Database, job_id: str):
    is_over = Event()

    def write(writer: int) -> None:
        for number in range(NUM_EACH):
            body = {"writer": writer, "number": number}
            with db.writing() as connection:
                for part in ("first", "second"):
                    events.add(connection, topic="jobs", job_id=job_id, time_s=1.0, step=0, kind=part, body=body)
                jobs.saw(connection, job_id, {"step": number, "num_steps": NUM_EACH}, now_s=1.0)

    def read() -> list[int]:
        seen = [0]
        while True:
            was_over = is_over.is_set()
            with db.reading() as connection:
                seen += [row.event_id for row in events.after(connection, seen[-1], limit=7)]
                if was_over and seen[-1] == events.newest_id(connection):
                    return seen[1:]

    with ThreadPoolExecutor(NUM_WRITERS + 1) as threads:
        reader = threads.submit(read)
        try:
            list(threads.map(write, range(NUM_WRITERS)))
        finally:
            is_over.set()
        seen = reader.result(60)
    with db.reading() as connection:
        all_ids = [row.event_id for row in events.after(connection, 0, limit=10_000)]
    assert len(all_ids) == 2 * NUM_WRITERS * NUM_EACH
    assert seen == all_ids


def test_of_many_who_change_one_pool_each_generation_goes_to_one(db: Database, job_id: str):
    with db.writing() as connection:
        values = {"job_id": job_id, "pool": "rollout", "mode": "manual", "replicas": 1}
        connection.execute(insert(pools_table), {**values, "generation": 1, "observed_generation": 1})

    def change(replicas: int) -> bool:
        with db.writing() as connection:
            wanted = pools.want(
                connection,
                job_id,
                "rollout",
                generation=1,
                mode="manual",
                replicas=replicas,
                min_replicas=None,
                max_replicas=None,
            )
            return wanted is not None

    with ThreadPoolExecutor(NUM_WRITERS) as threads:
        changed = list(threads.map(change, range(2, 2 + NUM_WRITERS)))
    assert changed.count(True) == 1
    with db.reading() as connection:
        row = pools.get(connection, job_id, "rollout")
    assert (row.generation, row.replicas) == (2, 2 + changed.index(True))


def test_of_many_with_one_idempotency_key_one_does_the_deed(db: Database):
    def ask(_: int) -> str:
        with db.writing() as connection:
            found = answers.begin(connection, token_id="t", key="k", request_sha256="a", now_s=1.0)
            if isinstance(found, answers.Fresh):
                answers.finish(connection, token_id="t", key="k", status=201, headers={}, body="")
            return type(found).__name__

    with ThreadPoolExecutor(NUM_WRITERS) as threads:
        found = list(threads.map(ask, range(NUM_WRITERS)))
    assert sorted(found) == ["Fresh"] + ["Saved"] * (NUM_WRITERS - 1)
