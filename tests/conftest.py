"""What all tests share: a model, a PostgreSQL, no network, no model cache of the user's, no hypothesis deadline."""

from __future__ import annotations

import os

# Before anything imports torch, ray or transformers.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import hypothesis
import pytest

START_S = 60.0
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=32MB", "listen_addresses=")

# A shell that runs tests in the background has them ignore Ctrl-C, and what they start inherits that: no test that
# presses it would ever be heard.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("tests", deadline=None, max_examples=60)
hypothesis.settings.load_profile("tests")


@pytest.fixture(scope="session")
def word_world_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache directory (`RLHF_CLUSTER_HOME`) that holds the generated word-world model, made once a session."""
    from rlhf_cluster.models import registry

    home = tmp_path_factory.mktemp("rlhf-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLHF_CLUSTER_HOME", str(home))
        registry.add("word-world", progress=lambda line: None)
    return home


@pytest.fixture(scope="session")
def my_lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that holds the files which the pages show: the package `my_lab`, and jobs that use it."""
    place, shown = (
        tmp_path_factory.mktemp("outside"),
        re.compile(r"^```\w+ file=(\S+)\n(.*?)^```", re.DOTALL | re.MULTILINE),
    )
    for page in (Path(__file__).parents[1] / "deploy" / "docs").glob("*.md"):
        for name, text in shown.findall(page.read_text(encoding="utf-8")):
            assert not (place / name).exists(), f"two pages show {name}"
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_text(text, encoding="utf-8")
    return place


def _postgresql_programs() -> Path | None:
    """The directory of `initdb` and `postgres`; Debian keeps them out of PATH, a directory for each version."""
    found = shutil.which("postgres")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    programs = Path(found).resolve().parent if found else debian[-1].parent if debian else None
    return programs if programs and (programs / "initdb").exists() else None


def _runs_as() -> dict[str, Any]:
    """PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return {}
    names = {user.pw_name: user for user in pwd.getpwall()}
    user = names.get("postgres") or names["nobody"]
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@pytest.fixture(scope="session")
def postgresql_cluster() -> Iterator[Path]:
    """A PostgreSQL of the tests' own, in a temporary directory, reached by its socket there alone: the directory, by
    which its superuser `postgres` connects."""
    programs = _postgresql_programs()
    if programs is None:
        pytest.skip("PostgreSQL is neither on PATH nor in /usr/lib/postgresql: install the package postgresql")
    pytest.importorskip("psycopg", reason="psycopg is not installed: it comes with the extra `service`")
    home = Path(tempfile.mkdtemp(prefix="rlhf-pg-"))
    identity = _runs_as()
    if identity:
        os.chown(home, identity["user"], identity["group"])
    data, options = home / "data", [word for setting in FAST for word in ("-c", setting)]
    server: subprocess.Popen[bytes] | None = None
    try:
        initialize = (programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        subprocess.run(initialize, check=True, capture_output=True, cwd=home, timeout=START_S, **identity)
        with (home / "log").open("wb") as log:
            program = (programs / "postgres", "-D", data, "-k", home, *options)
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
