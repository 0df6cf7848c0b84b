"""The database does not grow for ever: what is old goes, and what is new stays."""

from __future__ import annotations

import pytest
from sqlalchemy import insert

from rlhf_cluster.service import upkeep
from rlhf_cluster.service.settings import ServiceSettings
from rlhf_cluster.service.store import answers, audit, events, jobs, tokens
from rlhf_cluster.service.store.database import Database
from rlhf_cluster.service.store.tables import audit as audit_table

NOW_S = 1_000_000.0


@pytest.fixture(params=["sqlite", "postgresql"])
def db(request, tmp_path):
    is_postgresql = request.param == "postgresql"
    url = request.getfixturevalue("new_postgresql")() if is_postgresql else f"sqlite:///{tmp_path}/service.db"
    database = Database(url)
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def tidy(db, tmp_path):
    def run(**keep):
        settings = ServiceSettings(data_dir=tmp_path, **keep)
        each = upkeep.Upkeep(db, settings, clock=lambda: NOW_S)
        for trim in each.trims():
            each.all_of(trim)

    return run


def tell(db, num):
    with db.writing() as connection:
        job = {"name": "a", "owner": "ada", "labels": {}, "notes": "", "source": "", "config": {}, "now_s": 1.0}
        job_id = jobs.add(connection, **job, num_steps=9, max_attempts=1, bundle_sha256=None).job_id
        event = {"topic": "jobs", "job_id": job_id, "time_s": 1.0, "step": 0, "kind": "Phase", "body": {}}
        return [events.add(connection, **event) for _ in range(num)]


def test_the_newest_events_stay_however_many_have_to_go(db, tidy):
    ids = tell(db, upkeep.AT_ONCE + 30)
    tidy(keep_events=20)
    with db.reading() as connection:
        assert [row.event_id for row in events.after(connection, 0)] == ids[-20:]


def test_answers_and_changes_go_when_they_are_old(db, tidy):
    with db.writing() as connection:
        for age_s in (10.0, 1000.0):
            asked = {"token_id": "tok_1", "key": f"{age_s}", "request_sha256": "x", "now_s": NOW_S - age_s}
            assert isinstance(answers.begin(connection, **asked), answers.Fresh)
            change = {
                "who": "ada",
                "method": "PUT",
                "path": f"/{age_s}",
                "status": 200,
                "request_id": "",
                "is_ok": True,
            }
            connection.execute(insert(audit_table).values(**change, time_s=NOW_S - age_s))
    tidy(keep_answers_s=100.0, keep_audit_s=100.0)
    with db.writing() as connection:
        for age_s, kind in ((10.0, answers.InFlight), (1000.0, answers.Fresh)):
            asked = {"token_id": "tok_1", "key": f"{age_s}", "request_sha256": "x", "now_s": NOW_S}
            assert isinstance(answers.begin(connection, **asked), kind)
        assert [row.path for row in audit.page(connection, limit=9)[0]] == ["/10.0"]


def test_tokens_go_when_they_have_been_over_for_long(db, tidy):
    with db.writing() as connection:
        made = {
            name: tokens.add(connection, name=name, scopes=["read"], now_s=1.0, expires_s=expires_s)[0].token_id
            for name, expires_s in (("for good", None), ("just over", NOW_S - 10), ("long over", NOW_S - 1000))
        }
        made["revoked"] = tokens.add(connection, name="revoked", scopes=["read"], now_s=1.0)[0].token_id
        tokens.revoke(connection, made["revoked"], now_s=NOW_S - 1000)
    tidy(keep_expired_tokens_s=100.0)
    with db.reading() as connection:
        there = [name for name, token_id in made.items() if tokens.get(connection, token_id) is not None]
    assert there == ["for good", "just over"]
