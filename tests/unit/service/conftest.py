"""A PostgreSQL of the tests' own: a cluster in a temporary directory, reached by its socket there alone."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = Path("/usr/lib/postgresql/15/bin")
START_S = 60.0
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=32MB", "listen_addresses=")


def _runs_as() -> dict[str, Any]:
    """PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return {}
    names = {user.pw_name: user for user in pwd.getpwall()}
    user = names.get("postgres") or names["nobody"]
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@pytest.fixture(scope="session")
def postgresql_cluster() -> Iterator[Path]:
    """The directory of the socket, by which its superuser `postgres` connects."""
    if not (PROGRAMS / "postgres").exists():
        pytest.skip(f"there is no PostgreSQL in {PROGRAMS}")
    home = Path(tempfile.mkdtemp(prefix="rlhf-pg-"))
    identity = _runs_as()
    if identity:
        os.chown(home, identity["user"], identity["group"])
    data, options = home / "data", [word for setting in FAST for word in ("-c", setting)]
    server: subprocess.Popen[bytes] | None = None
    try:
        initialize = (PROGRAMS / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        subprocess.run(initialize, check=True, capture_output=True, cwd=home, timeout=START_S, **identity)
        with (home / "log").open("wb") as log:
            program = (PROGRAMS / "postgres", "-D", data, "-k", home, *options)
            server = subprocess.Popen(program, stdout=log, stderr=log, cwd=home, **identity)
        _wait_until_it_answers(home, server)
        yield home
    finally:
        if server is not None:
            server.send_signal(signal.SIGQUIT)  # at once: nothing is to be kept
            server.wait(START_S)
        shutil.rmtree(home)


def _wait_until_it_answers(home: Path, server: subprocess.Popen[bytes]) -> None:
    import psycopg

    deadline_s = time.monotonic() + START_S
    while True:
        try:
            psycopg.connect(host=str(home), user="postgres", dbname="postgres").close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError((home / "log").read_text()) from None
            time.sleep(0.05)


@pytest.fixture(scope="session")
def new_postgresql(postgresql_cluster: Path) -> Callable[[], str]:
    """Makes an empty database and gives its URL."""
    import psycopg

    numbers = count()

    def create() -> str:
        name = f"tests_{next(numbers)}"
        with psycopg.connect(
            host=str(postgresql_cluster), user="postgres", dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return f"postgresql://postgres@/{name}?host={postgresql_cluster}"

    return create
