"""Rooms import only downwards: the contracts of import-linter in pyproject.toml hold, and name every room."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_import_contract_is_kept():
    # A process of its own: it sets up logging for the whole process, and silences every logger that is there.
    lint = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run(
        [sys.executable, "-c", lint], cwd=ROOT, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_architecture_page_names_every_room():
    page = (ROOT / "deploy" / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = [path for path in (ROOT / "rlhf_cluster").iterdir() if path.name[0] not in "_."]
    missing = [path.name for path in rooms if f"\n  {path.name + '/' * path.is_dir()} " not in page]
    assert not missing, f"deploy/docs/architecture.md, The house: add {', '.join(missing)}"
