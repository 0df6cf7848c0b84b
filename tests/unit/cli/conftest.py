"""Runs command lines in this process, as `rlhf` would, and collects what they print and their exit code."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rlhf_cluster.cli.main import run


@pytest.fixture
def rlhf(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
