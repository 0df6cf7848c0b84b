"""Log lines: kept once, read from a line on, from the end, and searched."""

from __future__ import annotations

from rlhf_cluster.service.store import logs
from rlhf_cluster.service.store.database import Database
from rlhf_cluster.wire.relay import LogLine


def _send(db: Database, job_id: str, component: str, *lines: tuple[int, str]) -> None:
    sent = [LogLine(component=component, offset=offset, line=line, time_s=1.0) for offset, line in lines]
    with db.writing() as connection:
        logs.add(connection, job_id, sent)


def _lines(db: Database, job_id: str, **filters) -> list[str]:
    with db.reading() as connection:
        return [row.line for row in logs.page(connection, job_id, **{"limit": 100, **filters})]


def test_a_line_that_is_sent_again_is_kept_once(db: Database, submit):
    job_id, other = submit(), submit()
    _send(db, job_id, "driver", (0, "one"), (4, "two"))
    _send(db, job_id, "driver", (4, "two"), (8, "three"))
    _send(db, job_id, "rollout-0", (0, "hello"))
    _send(db, other, "driver", (0, "elsewhere"))
    _send(db, job_id, "driver")
    assert _lines(db, job_id) == ["one", "two", "three", "hello"]


def test_the_service_says_where_the_newest_line_of_each_component_begins(db: Database, job_id: str):
    with db.reading() as connection:
        assert logs.offsets(connection, job_id) == {}
    _send(db, job_id, "driver", (0, "one"), (4, "two"))
    _send(db, job_id, "rollout-0", (2**40, "far on"))
    with db.reading() as connection:
        assert logs.offsets(connection, job_id) == {"driver": 4, "rollout-0": 2**40}


def test_lines_are_read_on_from_one_of_them(db: Database, job_id: str):
    _send(db, job_id, "driver", *((number, f"line {number}") for number in range(6)))
    with db.reading() as connection:
        first = logs.page(connection, job_id, limit=2)
    assert [row.line for row in first] == ["line 0", "line 1"]
    assert _lines(db, job_id, after=first[-1].line_id, limit=3) == ["line 2", "line 3", "line 4"]
    assert _lines(db, job_id, after=10**9) == []


def test_the_end_is_given_oldest_first(db: Database, job_id: str):
    _send(db, job_id, "driver", *((number, f"line {number}") for number in range(6)))
    assert _lines(db, job_id, tail=2) == ["line 4", "line 5"]
    assert _lines(db, job_id, tail=50, limit=3) == ["line 3", "line 4", "line 5"]
    assert _lines(db, job_id, tail=0) == []


def test_lines_are_searched_by_component_and_words(db: Database, job_id: str):
    _send(db, job_id, "driver", (0, "An Error 100%"), (20, "fine"))
    _send(db, job_id, "rollout-0", (0, "error too"))
    assert _lines(db, job_id, q="error") == ["An Error 100%", "error too"]
    assert _lines(db, job_id, q="0%") == ["An Error 100%"]
    assert _lines(db, job_id, q="error", component="rollout-0") == ["error too"]
    assert _lines(db, job_id, q="error", component="driver", tail=1) == ["An Error 100%"]


def test_a_line_that_is_no_text_is_kept_as_well_as_it_can_be(db: Database, job_id: str):
    _send(db, job_id, "driver", (0, "a\0b"), (4, ""))
    assert _lines(db, job_id) == ["a\ufffdb", ""]
