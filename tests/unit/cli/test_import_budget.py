"""What a command line loads before it answers, seen in a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "ray", "vllm", "transformers", "matplotlib", "pyarrow")
OF_SERVERS = ("fastapi", "starlette", "uvicorn", "sqlalchemy", "alembic")
SLOW = ("numpy", "psutil", "rich", "pygments", "yaml")
"""What takes longer to load than a request takes."""
PROGRAM = """
import contextlib, io, json, sys
from rlhf_cluster.cli.main import run
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    code = run(sys.argv[1:])
print(json.dumps([code, sorted(name for name in sys.modules if "." not in name)]))
"""


def loaded_by(*arguments: str) -> tuple[int, set[str]]:
    child = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    code, modules = json.loads(child.stdout)
    return code, set(modules)


def test_help_loads_nothing_but_click():
    code, modules = loaded_by("--help")
    assert code == 0
    assert not modules & {*HEAVY, "numpy", "pydantic", "rich"}


@pytest.mark.parametrize(
    ("arguments", "expected_code"),
    [
        (["run", "no-such-job.toml"], 3),
        (["recipes", "list"], 0),
        (["schema"], 0),
        (["models", "list"], 0),
        (["doctor", "--quick"], None),
        (["chat", "--prompt", "", "x"], 2),
        (["status", "./no-such-job"], 3),
        (["resume", "./no-such-job"], 3),
        (["scale", "./no-such-job", "rollout=2"], 3),
        (["drain", "./no-such-job", "rollout-0"], 3),
        (["restart", "./no-such-job", "rollout-0"], 3),
        (["pause", "./no-such-job"], 3),
        (["checkpoint", "./no-such-job"], 3),
        (["stop", "./no-such-job"], 3),
        (["pipeline", "plan", "no-such.toml"], 2),
        (["pipeline", "lineage", "no-such-model"], 3),
    ],
)
def test_light_verbs_and_refusals_load_nothing_heavy(arguments, expected_code):
    code, modules = loaded_by(*arguments)
    assert expected_code in (code, None)
    assert not modules & set(HEAVY)


@pytest.mark.parametrize(
    "arguments",
    [
        ["submit", "word-world"],
        ["list"],
        ["show", "@last"],
        ["status", "@last"],
        ["status"],
        ["workers", "@last"],
        ["logs", "-f", "@last"],
        ["metrics", "@last", "--plot"],
        ["samples", "@last"],
        ["compare", "@last", "other"],
        ["scale", "@last", "rollout=2"],
        ["drain", "@last", "rollout-0"],
        ["restart", "@last", "rollout-0"],
        ["pause", "@last"],
        ["resume", "@last"],
        ["checkpoint", "@last"],
        ["stop", "@last"],
        ["cancel", "@last"],
        ["kill", "@last"],
        ["retry", "@last"],
        ["clone", "@last"],
        ["watch", "@last"],
        ["cluster"],
        ["whoami"],
        ["token", "list"],
        ["label", "list"],
        ["label", "work", "taste"],
        ["openapi"],
        ["login", "http://127.0.0.1:9", "--token", "x"],
    ],
    ids=" ".join,
)
def test_what_asks_a_service_loads_what_it_asks_with_and_no_more(arguments, monkeypatch):
    monkeypatch.setenv("RLHF_SERVER", "http://127.0.0.1:9")  # nobody listens there
    code, modules = loaded_by(*arguments)
    assert code == 5
    assert not modules & {*HEAVY, *OF_SERVERS, *SLOW}
