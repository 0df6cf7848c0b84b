"""The page's own tests: what it makes of messages, numbers and job files. They need what its build has installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "page"
INSTALLED = PAGE / "node_modules" / "vitest"


@pytest.mark.skipif(shutil.which("npm") is None or not INSTALLED.exists(), reason="the page was not built here")
def test_the_page_keeps_its_own_tests():
    done = subprocess.run(["npm", "test"], cwd=PAGE, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
