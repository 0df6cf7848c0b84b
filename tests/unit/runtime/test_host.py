"""What the host of a role makes of its errors, and the end of its log; the rest is seen on Ray."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rlhf_cluster.errors import RoleDied, RoleError, RoleTimeout
from rlhf_cluster.runtime.host import RoleHost, last_log_lines
from rlhf_cluster.runtime.spec import RoleSpec


class OutOfMemoryError(RuntimeError):
    """Called like torch's."""


class Role:
    async def fail(self, error: Exception) -> None:
        raise error

    async def fail_streaming(self, error: Exception):
        yield 1
        raise error


def make_host() -> RoleHost:
    spec = RoleSpec(role="reward server", worker_id="reward-0", factory="", arguments={}, cpus=1, gpus=0)
    host = RoleHost(spec)
    host.role = Role()
    return host


async def read(host: RoleHost, error: Exception) -> list[int]:
    return [message async for message in host.stream("fail_streaming", (error,))]


def test_our_own_errors_travel_as_they_are():
    error = RoleTimeout("took too long")
    with pytest.raises(RoleTimeout) as raised:
        asyncio.run(make_host().call("fail", (error,), {}))
    assert raised.value is error
    with pytest.raises(RoleTimeout) as raised:
        asyncio.run(read(make_host(), error))
    assert raised.value is error


@pytest.mark.parametrize("error", [MemoryError("no more"), OutOfMemoryError("no more")])
def test_out_of_memory_is_a_death(error):
    with pytest.raises(RoleDied, match=r"reward-0 ran out of memory in fail: .*MemoryError: no more"):
        asyncio.run(make_host().call("fail", (error,), {}))


def test_any_other_error_says_its_type_its_message_and_where():
    with pytest.raises(RoleError) as raised:
        asyncio.run(make_host().call("fail", (ZeroDivisionError("a bug"),), {}))
    assert type(raised.value) is RoleError
    first, *where = str(raised.value).splitlines()
    assert first == "reward server reward-0 failed in fail: ZeroDivisionError: a bug"
    assert "test_host.py" in where[-2]
    assert where[-1].strip() == "raise error"
    with pytest.raises(RoleError, match="failed in fail_streaming: KeyError"):
        asyncio.run(read(make_host(), KeyError("a bug")))


def test_stacks_name_the_process_and_the_frames():
    text = asyncio.run(make_host().stacks())
    assert text.startswith("stacks of reward-0, process ")
    assert "test_host.py" in text


def test_the_end_of_a_log_is_its_last_lines(tmp_path: Path):
    (tmp_path / "reward-0.log").write_bytes(b"\xff broken\n" * 10 + b"".join(b"line %d\n" % n for n in range(20_000)))
    assert last_log_lines(tmp_path, "reward-0", 2) == ["line 19998", "line 19999"]
    assert len(last_log_lines(tmp_path, "reward-0")) == 20


def test_a_role_without_a_log_has_no_lines(tmp_path: Path):
    assert last_log_lines(None, "reward-0") == last_log_lines(tmp_path, "reward-0") == []
