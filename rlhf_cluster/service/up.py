"""`rlhf up` and `rlhf down`: the API server, and a private Ray where no cluster is named, as processes of this machine.

What was started is written down in the data directory, with process ids and start times; `down` ends that and nothing
else. Calling either twice is calling it once, and `up` starts again whatever has died.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from rlhf_cluster.client.private_file import private_dir, read_private, write_private
from rlhf_cluster.errors import RlhfError
from rlhf_cluster.service.private_ray import PrivateRay, end_drivers, start_private_ray
from rlhf_cluster.service.processes import REST, Started, last_lines, start
from rlhf_cluster.wire.access import ServerInfo

STATE, SERVER, RAY_TOKEN, ADMIN_TOKEN = "up.json", "server.json", "ray.token", "admin.token"
DEFAULT_PORT = 8420
READY_S = 60.0
LOOK_EVERY_S = 0.1
SERVER_GRACE_S = 20.0
LOCK_S = 300.0


class NotUp(RlhfError):
    """The service could not be started, or does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    data_dir: Path
    host: str = "127.0.0.1"
    port: int | None = None
    """None is `DEFAULT_PORT`, or any other where that is taken."""
    ray_address: str | None = None
    """Of a cluster's dashboard; None is a private Ray."""
    num_cpus: int | None = None
    object_store_bytes: int = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Up:
    info: ServerInfo
    login_url: str
    was_up: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is written down of what runs."""

    server: Started | None = None
    url: str = ""
    ray: PrivateRay | None = None

    @property
    def port(self) -> int | None:
        return urlsplit(self.url).port


def up(options: UpOptions, *, tell: Callable[[str], None]) -> Up:
    """Start what does not run yet, and wait until it answers. Raises `NotUp`, `RayNotStarted` and `ConfigError`."""
    data_dir = private_dir(options.data_dir).resolve()
    private_dir(data_dir / "logs")
    with _alone(data_dir):
        state = read_state(data_dir)
        was_up = state.server is not None and state.server.is_alive() and _has_its_ray(state)
        ray_url = options.ray_address
        if ray_url is None:
            state = _with_ray(state, options, data_dir, tell=tell)
            ray_url = state.ray.url if state.ray else None
        state = _with_server(state, options, data_dir, ray_url=ray_url, tell=tell)
        info = _server_info(state, data_dir)
        write_private(data_dir / SERVER, info.model_dump_json(indent=2) + "\n")
    return Up(info=info, login_url=_login_url(info), was_up=was_up)


def down(data_dir: Path, *, tell: Callable[[str], None]) -> list[str]:
    """End what `up` has started; which of it was running, in words. Jobs go on at the next `up`, where they ended."""
    if not data_dir.is_dir():
        return []
    with _alone(data_dir):
        state = read_state(data_dir)
        if state.ray is not None and state.ray.process.is_alive():
            # It hears how each driver ends, and would begin another attempt of every such job.
            if state.server is not None:
                state.server.send(REST)
            end_drivers(state.ray, token=_ray_token(data_dir), tell=tell)
        ended = ["the service"] if state.server and state.server.end(grace_s=SERVER_GRACE_S) else []
        ended += ["its Ray"] if state.ray and state.ray.end() else []
        for name in (SERVER, STATE):
            (data_dir / name).unlink(missing_ok=True)
    return ended


def read_state(data_dir: Path) -> State:
    """Raises `NotUp` for a file that somebody else has written."""
    content = read_private(data_dir / STATE)
    if content is None:
        return State()
    try:
        data = json.loads(content)
        server, ray = data["server"], data["ray"]
        return State(
            server=Started(**server) if server else None,
            url=data["url"],
            ray=PrivateRay(process=Started(**ray.pop("process")), **ray) if ray else None,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise NotUp(f"{data_dir / STATE} is not what `rlhf up` writes ({error}): move it away") from error


def _write_state(state: State, data_dir: Path) -> None:
    write_private(data_dir / STATE, json.dumps(dataclasses.asdict(state), indent=2) + "\n")


def _has_its_ray(state: State) -> bool:
    return state.ray is None or state.ray.process.is_alive()


def _with_ray(state: State, options: UpOptions, data_dir: Path, *, tell: Callable[[str], None]) -> State:
    if state.ray is not None and state.ray.process.is_alive():
        return state
    tell("starting a private Ray")
    if state.ray is not None:
        state.ray.end()  # what its head has left behind
    if state.server is not None:
        state.server.end(grace_s=SERVER_GRACE_S)  # it knows the Ray that has died
    ray = start_private_ray(
        token=_ray_token(data_dir),
        num_cpus=options.num_cpus,
        object_store_bytes=options.object_store_bytes,
        log=data_dir / "logs" / "ray.log",
        # It takes a while to start, and must not be lost when somebody presses Ctrl-C meanwhile.
        note=lambda ray: _write_state(State(ray=ray, url=state.url), data_dir),
    )
    return State(ray=ray, url=state.url)


def _with_server(
    state: State, options: UpOptions, data_dir: Path, *, ray_url: str | None, tell: Callable[[str], None]
) -> State:
    if state.server is not None and state.server.is_alive():
        return state
    tell("starting the service")
    port = options.port if options.port is not None else _port(options.host, before=state.port)
    arguments = [sys.executable, "-m", "rlhf_cluster.cli", "serve", "--data-dir", str(data_dir)]
    arguments += ["--host", options.host, "--port", str(port)]
    arguments += ["--ray-address", ray_url] if ray_url else []
    token = read_private(data_dir / RAY_TOKEN) if state.ray else os.environ.get("RAY_AUTH_TOKEN")
    env = {**os.environ, "RAY_AUTH_TOKEN": token} if token else dict(os.environ)
    log = data_dir / "logs" / "server.log"
    server, _ = start(arguments, env=env, log=log)
    state = dataclasses.replace(state, server=server, url=f"http://{options.host}:{port}")
    _write_state(state, data_dir)
    _wait_until_ready(server, state.url, log)
    return state


def _wait_until_ready(server: Started, url: str, log: Path) -> None:
    deadline_s = time.monotonic() + READY_S
    with httpx.Client(trust_env=False, timeout=5.0) as http:
        while server.is_alive():
            with contextlib.suppress(httpx.HTTPError):
                if http.get(f"{url}/readyz").status_code == 200:
                    return
            if time.monotonic() > deadline_s:
                server.end(grace_s=SERVER_GRACE_S)
                raise NotUp(f"the service did not answer at {url} within {READY_S:g} s; see {log}")
            time.sleep(LOOK_EVERY_S)
    raise NotUp(f"the service ended while it started; {log} ends with:\n{last_lines(log)}")


def _server_info(state: State, data_dir: Path) -> ServerInfo:
    assert state.server is not None
    ray: dict[str, Any] = {}
    if state.ray is not None:
        ray = {"url": state.ray.url, "address": state.ray.address, "token_file": str(data_dir / RAY_TOKEN)}
    return ServerInfo(
        url=state.url,
        token=read_private(data_dir / ADMIN_TOKEN) or "",
        process_id=state.server.process_id,
        ray=ray,
    )


def _login_url(info: ServerInfo) -> str:
    """Empty where our token is no longer good: whoever revoked it has another one."""
    try:
        answer = httpx.post(
            f"{info.url}/api/v1/auth/login-links",
            headers={"Authorization": f"Bearer {info.token}"},
            timeout=10.0,
            trust_env=False,
        )
    except httpx.HTTPError as error:
        raise NotUp(f"the service at {info.url} runs and does not answer ({error}); `rlhf down` ends it") from error
    return answer.json()["url"] if answer.status_code == 201 else ""


def _ray_token(data_dir: Path) -> str:
    token = read_private(data_dir / RAY_TOKEN)
    if token is None:
        token = secrets.token_hex(32)
        write_private(data_dir / RAY_TOKEN, f"{token}\n")
    return token


def _port(host: str, *, before: int | None) -> int:
    """That of `before`, if it can be had: there the relays of jobs that run look for the service."""
    for port in (before or DEFAULT_PORT, DEFAULT_PORT, 0):
        with contextlib.suppress(OSError), socket.create_server((host, port)) as free:
            return free.getsockname()[1]
    return DEFAULT_PORT  # the server tells what is wrong with the host


@contextlib.contextmanager
def _alone(data_dir: Path) -> Generator[None]:
    """One `up` or `down` at a time."""
    deadline_s = time.monotonic() + LOCK_S
    with open(data_dir / "up.lock", "w", encoding="utf-8") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline_s:
                    raise NotUp(f"another `rlhf up` or `rlhf down` is at work in {data_dir}; try again") from None
            time.sleep(LOOK_EVERY_S)
        yield
