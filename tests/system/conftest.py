"""Command lines as a person types them: a fresh process, its exit code, and what it left on disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .up_service import UpService

BOUND_S = 280


@dataclass(frozen=True)
class Finished:
    code: int
    out: str
    err: str
    runs: Path

    def journal(self) -> list[dict[str, Any]]:
        """Events of the one job that ran."""
        [journal] = self.runs.glob("*/journal.jsonl")
        return [json.loads(line) for line in journal.read_text().splitlines()]

    def steps(self) -> list[dict[str, float]]:
        return [event["metrics"] for event in self.journal() if event["event"] == "StepDone"]


@pytest.fixture
def rlhf(tmp_path: Path, word_world_home: Path) -> Callable[..., Finished]:
    def call(*arguments: str, name: str = "runs", env: dict[str, str] | None = None) -> Finished:
        runs = tmp_path / name
        if arguments[0] in ("run", "eval"):
            arguments = (*arguments, f"output_dir={runs}")
        done = subprocess.run(
            [sys.executable, "-m", "rlhf_cluster.cli", *arguments],
            env={**os.environ, "RLHF_CLUSTER_HOME": str(word_world_home), **(env or {})},
            capture_output=True,
            text=True,
            timeout=BOUND_S,
            check=False,
        )
        return Finished(done.returncode, done.stdout, done.stderr, runs)

    return call


@pytest.fixture(scope="module")
def up_service(word_world_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpService]:
    """One service with a Ray of its own for all tests of a file; nothing of it is left afterwards."""
    service = UpService(home=word_world_home, data_dir=tmp_path_factory.mktemp("up") / "service")
    service.up()
    yield service
    service.down()
