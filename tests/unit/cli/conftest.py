"""Runs command lines in this process, as `rlhf` would, and collects what they print and their exit code."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlhf_cluster.cli.main import run

sys.path.insert(0, str(Path(__file__).parent))  # for `service_stage`, which tests of this room share
from service_stage import ServiceStage


@pytest.fixture(autouse=True)
def _no_service_of_the_user(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a login nor a service of whoever runs the tests."""
    monkeypatch.setenv("RLHF_CLUSTER_HOME", str(tmp_path_factory.mktemp("home")))
    for name in ("RLHF_SERVER", "RLHF_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _usual_signals() -> Iterator[None]:
    """A job that was stopped leaves SIGTERM without effect; this process lives on, and what it starts inherits that."""
    yield
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture
def rlhf(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def running_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceStage]:
    stage = ServiceStage(tmp_path_factory.mktemp("service"))
    yield stage
    stage.stop()


@pytest.fixture
def service(running_service: ServiceStage, monkeypatch: pytest.MonkeyPatch) -> ServiceStage:
    """One service for the tests of a file; commands find it, with a token that may submit."""
    monkeypatch.setenv("RLHF_SERVER", running_service.url)
    monkeypatch.setenv("RLHF_TOKEN", running_service.tokens["submit"])
    return running_service
