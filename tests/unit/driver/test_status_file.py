"""The view of a job comes back as it was written, whole or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.driver.status_file import FILE_NAME, StatusFile, read_view, write_view
from rlhf_cluster.records.members import JobView, MemberView, PoolView, RoleTime

COUNTS = st.integers(0, 2**50)
SECONDS = st.floats(allow_nan=False)
MEMBERS = st.builds(
    MemberView,
    role=st.text(),
    worker_id=st.text(),
    state=st.text(),
    reason=st.text(),
    version=COUNTS,
    num_in_flight=COUNTS,
    tokens_per_s=SECONDS,
)
POOLS = st.builds(
    PoolView,
    role=st.text(),
    desired=COUNTS,
    num_restarts=COUNTS,
    last_error=st.text(),
    members=st.lists(MEMBERS, max_size=2).map(tuple),
    mode=st.text(),
    min_workers=COUNTS,
    max_workers=COUNTS,
    reason=st.text(),
    recommended=COUNTS,
)
TIMES = st.builds(RoleTime, role=st.text(), busy=SECONDS, waiting=SECONDS, adopting=SECONDS, other=SECONDS)
WORDS = {name: st.text() for name in ("job_name", "state", "phase", "waiting_for", "bottleneck")}
NUMBERS = dict.fromkeys(("epoch", "step", "num_steps", "num_in_flight", "num_complete"), COUNTS)
VIEWS = st.builds(
    JobView,
    time_s=SECONDS,
    pools=st.lists(POOLS, max_size=2).map(tuple),
    time_split=st.lists(TIMES, max_size=2).map(tuple),
    **WORDS,
    **NUMBERS,
)


def some_view(**changes: object) -> JobView:
    fields = dict.fromkeys(WORDS, "x") | dict.fromkeys(NUMBERS, 1) | {"time_s": 1.0, "pools": ()}
    return JobView(**(fields | changes))


@given(view=VIEWS)
def test_any_view_comes_back_as_it_was_written(tmp_path_factory, view):
    job_dir = tmp_path_factory.mktemp("job")
    write_view(job_dir, view)
    assert read_view(job_dir) == view
    assert [path.name for path in job_dir.iterdir()] == [FILE_NAME]


@given(view=VIEWS, data=st.data())
def test_a_torn_view_is_no_view(tmp_path_factory, view, data):
    job_dir = tmp_path_factory.mktemp("job")
    write_view(job_dir, view)
    whole = (job_dir / FILE_NAME).read_bytes().rstrip()
    (job_dir / FILE_NAME).write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert read_view(job_dir) is None


def test_no_file_is_no_view(tmp_path):
    assert read_view(tmp_path) is None
    assert read_view(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    "changes", [{"step": "five"}, {"step": None}, {"pools": {}}, {"pools": [3]}, {"pools": [{}]}, {"time_s": True}]
)
def test_a_view_with_a_field_of_another_kind_is_no_view(tmp_path, changes):
    (tmp_path / FILE_NAME).write_text(json.dumps(dataclasses.asdict(some_view()) | changes))
    assert read_view(tmp_path) is None


def test_a_view_of_a_newer_version_is_read_as_far_as_it_is_known(tmp_path):
    (tmp_path / FILE_NAME).write_text(json.dumps(dataclasses.asdict(some_view()) | {"num_moons": 2}))
    assert read_view(tmp_path) == some_view()


def test_a_view_of_an_older_version_has_what_was_new_left_out(tmp_path):
    pool = PoolView(role="rollout worker", desired=1, num_restarts=0, last_error="", members=())
    written = dataclasses.asdict(some_view(pools=(pool,)))
    del written["time_split"]
    for name in ("mode", "min_workers", "max_workers", "reason", "recommended"):
        del written["pools"][0][name]
    (tmp_path / FILE_NAME).write_text(json.dumps(written))
    assert read_view(tmp_path) == some_view(pools=(pool,))


def test_views_are_kept_until_cancelled_and_a_disk_that_is_away_stops_nothing(tmp_path):
    job_dir = tmp_path / "away"
    steps = iter(range(1000))

    async def view() -> JobView:
        return some_view(step=next(steps))

    async def keep() -> None:
        keeping = asyncio.create_task(StatusFile(job_dir).keep(view, every_s=0.001))
        async with asyncio.timeout(20):
            await asyncio.sleep(0.02)
            assert not keeping.done()
            job_dir.mkdir()
            while (seen := read_view(job_dir)) is None or seen.step < 5:  # noqa: ASYNC110 - a file is waited for
                await asyncio.sleep(0.001)
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping

    asyncio.run(keep())
