"""Jobs: how people name them, list them, change them, and how they go through their states."""

from __future__ import annotations

import pytest

from rlhf_cluster.service.store import attempts, events, jobs, metrics, pools
from rlhf_cluster.service.store.database import Database


def test_a_new_job_waits_to_be_run(db: Database, submit):
    job_id = submit(name="sparkling-otter", labels={"team": "red"}, config={"seed": 3}, now_s=7.5)
    with db.reading() as connection:
        row = jobs.get(connection, job_id)
    assert (row.name, row.labels, row.config, row.state, row.wanted) == (
        "sparkling-otter",
        {"team": "red"},
        {"seed": 3},
        "queued",
        "run",
    )
    assert (row.created_s, row.wanted_s, row.started_s, row.ended_s) == (7.5, 7.5, None, None)
    assert (row.step, row.version, row.num_entries, row.view) == (0, 1, 0, None)


def test_a_job_is_found_by_id_and_its_beginning_and_name_and_as_the_last_one(db: Database, submit):
    old, new, other = submit(name="twin", now_s=1.0), submit(name="twin", now_s=2.0), submit(name="other", now_s=3.0)
    with db.reading() as connection:
        assert jobs.find(connection, old).job_id == old
        assert jobs.find(connection, new[:-1]).job_id == new
        assert jobs.find(connection, "twin").job_id == new
        assert jobs.find(connection, "@last").job_id == other


def test_a_beginning_that_several_ids_have_is_told(db: Database, submit):
    submit(), submit()
    with db.reading() as connection, pytest.raises(LookupError, match="'job_' begins the ids of several jobs"):
        jobs.find(connection, "job_")


@pytest.mark.parametrize("ref", ["nothing", "", "%", "job_%", "_", "@last"])
def test_a_job_that_is_not_there_is_told_and_wildcards_are_none(db: Database, ref: str):
    with db.reading() as connection, pytest.raises(LookupError, match="there is no job"):
        jobs.find(connection, ref)


def _listed(db: Database, **filters) -> list[str]:
    with db.reading() as connection:
        return [row.name for row in jobs.page(connection, limit=10, **filters)[0]]


def test_jobs_are_filtered_by_everything_at_once(db: Database, submit):
    first = submit(name="one", owner="ada", labels={"team": "red", 'od"d.key': "1"}, notes="100% Done", now_s=1.0)
    submit(name="two", owner="bob", labels={"team": "blue"}, now_s=2.0)
    with db.writing() as connection:
        jobs.set_state(connection, first, "running", message="step 3", now_s=5.0)
    assert _listed(db) == ["two", "one"]
    assert _listed(db, states=["running", "failed"]) == ["one"]
    assert _listed(db, states=[]) == []
    assert _listed(db, owner="bob") == _listed(db, name="two") == _listed(db, label="team=blue") == ["two"]
    assert _listed(db, label="team") == ["two", "one"]
    assert _listed(db, label="team=green") == _listed(db, label="none") == []
    assert _listed(db, label='od"d.key=1') == ["one"]
    assert _listed(db, q="0% d") == _listed(db, q="STEP") == _listed(db, q=first[4:]) == ["one"]
    assert _listed(db, q="_wo") == []
    assert _listed(db, states=["running"], owner="ada", label="team=red", q="one", name="one") == ["one"]


def test_jobs_of_one_moment_are_listed_in_the_order_in_which_they_came(db: Database, submit):
    ids = [submit(now_s=1.0) for _ in range(5)]
    with db.reading() as connection:
        assert [row.job_id for row in jobs.page(connection, limit=9)[0]] == ids[::-1]
        assert [row.job_id for row in jobs.unfinished(connection)] == ids


def test_a_cursor_that_is_none_is_refused(db: Database):
    with db.reading() as connection, pytest.raises(ValueError, match="next_cursor"):
        jobs.page(connection, limit=3, cursor="WzFd")


def test_wanting_the_same_again_does_not_begin_anew(db: Database, job_id: str):
    with db.writing() as connection:
        jobs.want(connection, job_id, "cancel", now_s=5.0)
        jobs.want(connection, job_id, "cancel", now_s=9.0)
        assert jobs.get(connection, job_id).wanted_s == 5.0
        jobs.want(connection, job_id, "kill", now_s=11.0)
        row = jobs.get(connection, job_id)
        assert (row.wanted, row.wanted_s) == ("kill", 11.0)


def test_of_two_who_change_the_same_version_one_is_told(db: Database, job_id: str):
    with db.writing() as connection:
        changed = jobs.change(connection, job_id, version=1, notes="mine", labels={"a": "b"})
        assert (changed.notes, changed.labels, changed.version) == ("mine", {"a": "b"}, 2)
        assert jobs.change(connection, job_id, version=1, notes="theirs") is None
        assert jobs.get(connection, job_id).notes == "mine"
        assert jobs.change(connection, "job_none", version=1, notes="") is None


def test_times_are_those_of_the_first_run_and_of_the_newest_end(db: Database, job_id: str):
    def times(state: str, now_s: float) -> tuple[float | None, float | None]:
        with db.writing() as connection:
            jobs.set_state(connection, job_id, state, message=state, now_s=now_s)
            row = jobs.get(connection, job_id)
            assert (row.state, row.message) == (state, state)
            return row.started_s, row.ended_s

    assert times("launching", 1.0) == (None, None)
    assert times("running", 2.0) == (2.0, None)
    assert times("paused", 3.0) == (2.0, None)
    assert times("running", 4.0) == (2.0, None)
    assert times("failed", 5.0) == (2.0, 5.0)
    assert times("failed", 6.0) == (2.0, 5.0)
    assert times("launching", 7.0) == (2.0, None)
    assert times("succeeded", 8.0) == (2.0, 8.0)


def test_finished_jobs_are_not_among_the_unfinished(db: Database, submit):
    ids = [submit(now_s=float(number)) for number in range(3)]
    with db.writing() as connection:
        jobs.set_state(connection, ids[1], "cancelled", message="", now_s=9.0)
        assert [row.job_id for row in jobs.unfinished(connection)] == [ids[0], ids[2]]


def test_the_newest_view_brings_how_far_the_job_is(db: Database, job_id: str):
    view = {"step": 4, "num_steps": 40, "phase": "generating"}
    with db.writing() as connection:
        jobs.saw(connection, job_id, view, now_s=3.0)
        jobs.took(connection, job_id, num_entries=17)
        row = jobs.get(connection, job_id)
    assert (row.step, row.num_steps, row.view, row.view_s, row.num_entries) == (4, 40, view, 3.0, 17)


def test_a_job_goes_with_all_that_belongs_to_it(db: Database, submit):
    job_id, other = submit(), submit()
    with db.writing() as connection:
        for each in (job_id, other):
            attempts.add(connection, each, 1, submission_id="", now_s=1.0)
            metrics.add(connection, each, step=1, time_s=1.0, values={"a": 1.0})
            events.add(connection, topic="jobs", job_id=each, time_s=1.0, step=0, kind="Phase", body={})
        jobs.delete(connection, job_id)
    with db.reading() as connection:
        assert jobs.get(connection, job_id) is None
        assert attempts.of_job(connection, job_id) == pools.of_job(connection, job_id) == []
        assert metrics.keys(connection, job_id) == []
        assert [event.job_id for event in events.after(connection, 0)] == [other]
        assert metrics.latest(connection, other) == ({"a": 1.0}, 1)
