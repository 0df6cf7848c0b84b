"""Text and JSON that only one of the databases would take as they are."""

from __future__ import annotations

from sqlalchemy import select

from rlhf_cluster.service.store import events, jobs
from rlhf_cluster.service.store.columns import storable
from rlhf_cluster.service.store.database import Database
from rlhf_cluster.service.store.tables import metric_keys
from rlhf_cluster.service.store.upserts import insert_into

ODD = "null \0 half \ud83d whole \U0001f600"
KEPT = "null \ufffd half ? whole \U0001f600"


def test_text_that_a_model_writes_is_kept_as_well_as_it_can_be(db: Database, submit):
    job_id = submit(notes=ODD, labels={ODD: ODD})
    with db.reading() as connection:
        row = jobs.get(connection, job_id)
        assert (row.notes, row.labels) == (KEPT, {KEPT: KEPT})


def test_numbers_that_are_not_finite_become_null_in_json(db: Database, job_id: str):
    body = {"nan": float("nan"), "list": [1.5, float("-inf")], "text": "NaN", "none": None}
    with db.writing() as connection:
        events.add(connection, topic="jobs", job_id=job_id, time_s=1.0, step=0, kind="Notice", body=body)
        assert events.after(connection, 0)[0].body == {"nan": None, "list": [1.5, None], "text": "NaN", "none": None}


def test_text_longer_than_its_column_is_cut(db: Database):
    with db.writing() as connection:
        connection.execute(insert_into(connection, metric_keys).values(key="k" * 500))
        assert connection.execute(select(metric_keys.c.key)).scalar_one() == "k" * 200


def test_what_is_looked_for_is_not_cut(db: Database, submit):
    submit(name="n" * 128)
    with db.reading() as connection:
        assert jobs.page(connection, limit=5, name="n" * 129)[0] == []
        assert len(jobs.page(connection, limit=5, name="n" * 128)[0]) == 1


def test_an_id_that_no_database_could_hold_is_simply_not_there(db: Database):
    with db.reading() as connection:
        assert jobs.get(connection, "job_\0\ud800") is None


def test_json_is_mended_at_every_depth():
    assert storable({1: ({"a": [float("inf"), "\0"]},)}) == {"1": [{"a": [None, "\ufffd"]}]}
