"""`rlhf serve` as a process: its first token, its log, its end, and what it says where it cannot begin."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from rlhf_cluster.service.up import NotUp, down, read_state

BOUND_S = 60


def command(data_dir: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "rlhf_cluster.cli", "serve", "--data-dir", str(data_dir), "--port", "0", *more]


@contextmanager
def served(data_dir: Path, log: Path, *more: str) -> Iterator[str]:
    """Its URL, as its log tells it; it ends by SIGTERM with code 0."""
    with started(data_dir, log, *more) as (url, process):
        yield url
        process.send_signal(signal.SIGTERM)
        assert process.wait(BOUND_S) == 0, log.read_text()


@contextmanager
def started(data_dir: Path, log: Path, *more: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Killed at the end, where it still runs then."""
    with log.open("w") as file:
        process = subprocess.Popen(command(data_dir, *more), stderr=file, env=environment())
    try:
        deadline_s = time.monotonic() + BOUND_S
        while not (url := next((line["message"][8:] for line in lines(log) if "serving" in line["message"]), "")):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline_s, log.read_text()
            time.sleep(0.05)
        while not is_ready(url):
            assert time.monotonic() < deadline_s, log.read_text()
            time.sleep(0.05)
        yield url, process
    finally:
        process.kill()
        process.wait()


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("RLHF_", "RAY_AUTH_TOKEN"))}


def lines(log: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
    except httpx.ConnectError:
        return False


def me(url: str, token: str) -> httpx.Response:
    return httpx.get(f"{url}/api/v1/auth/me", headers={"Authorization": f"Bearer {token}"}, trust_env=False)


def test_the_first_start_makes_an_admin_token_and_later_ones_keep_it(tmp_path):
    data_dir, log = tmp_path / "data", tmp_path / "log"
    path = data_dir / "admin.token"
    with served(data_dir, log) as url:
        token = path.read_text().strip()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
        assert me(url, token).json()["scopes"] == ["admin"]
    assert token not in log.read_text()
    with served(data_dir, log) as url:
        assert me(url, token).status_code == 200
    assert path.read_text().strip() == token


def submit(url: str, data_dir: Path, key: str) -> httpx.Response:
    token = (data_dir / "admin.token").read_text().strip()
    return httpx.post(
        f"{url}/api/v1/jobs",
        json={"recipe": "word-world", "overrides": ["train.num_steps=3"]},
        headers={"Authorization": f"Bearer {token}", "Idempotency-Key": key},
        trust_env=False,
        timeout=BOUND_S,
    )


def test_a_request_that_is_sent_again_after_a_kill_is_done_once(tmp_path):
    """Killed at any moment: before the job is there, after it, or while many send the same at once."""
    data_dir, log = tmp_path / "data", tmp_path / "log"
    answered: list[str] = []

    def send_until_it_is_gone(url: str) -> None:
        with contextlib.suppress(httpx.TransportError):
            while True:
                answered.append(submit(url, data_dir, "the-key").json()["job_id"])

    with started(data_dir, log) as (url, process):
        senders = [threading.Thread(target=send_until_it_is_gone, args=(url,)) for _ in range(2)]
        for sender in senders:
            sender.start()
        while not answered and any(sender.is_alive() for sender in senders):
            time.sleep(0.005)
        process.kill()
        for sender in senders:
            sender.join(BOUND_S)
            assert not sender.is_alive()
    with served(data_dir, log) as url:
        again = [submit(url, data_dir, "the-key") for _ in range(2)]
        other = submit(url, data_dir, "another-key").json()["job_id"]
        assert {each.status_code for each in again} == {201}
        assert {each.headers["idempotency-replayed"] for each in again} == {"true"}
        assert len({*answered, *(each.json()["job_id"] for each in again)}) == 1
        token = (data_dir / "admin.token").read_text().strip()
        listed = httpx.get(f"{url}/api/v1/jobs", headers={"Authorization": f"Bearer {token}"}, trust_env=False)
        assert [each["job_id"] for each in listed.json()["items"]] == [other, answered[0]]


def test_every_line_of_its_log_is_json_and_a_request_s_line_has_its_id(tmp_path):
    log = tmp_path / "log"
    with served(tmp_path / "data", log) as url:
        httpx.get(f"{url}/api/v1/version", headers={"X-Request-ID": "mine"}, trust_env=False)
    everything = [json.loads(line) for line in log.read_text().splitlines()]
    [line] = [each for each in everything if each.get("request_id") == "mine"]
    assert line["message"] == "GET /api/v1/version 200"
    assert line["duration_s"] >= 0


def test_a_port_that_is_taken_is_told_in_a_sentence(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            command(tmp_path, "--port", port), capture_output=True, text=True, timeout=BOUND_S, env=environment()
        )
    assert done.returncode == 2
    assert f"127.0.0.1:{port} cannot be listened on" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7"])
def test_an_open_address_without_a_lock_is_refused(tmp_path, host):
    arguments = command(tmp_path, "--host", host, "--insecure-no-auth")
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=BOUND_S, env=environment())
    assert done.returncode == 2
    assert "would let anybody who reaches it run code" in done.stderr


def test_down_where_nothing_was_ever_up_ends_nothing(tmp_path):
    assert down(tmp_path / "nothing", tell=print) == []
    assert down(tmp_path, tell=print) == []


def test_a_state_file_of_somebody_else_is_refused(tmp_path):
    (tmp_path / "up.json").write_text('{"server": 3}')
    with pytest.raises(NotUp, match="move it away"):
        read_state(tmp_path)
