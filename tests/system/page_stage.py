"""A stage for tests of the page: the real service with a seeded database in a process, and a real browser before it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
AXE = ROOT / "page" / "node_modules" / "axe-core" / "axe.min.js"
SEEDED = Path(__file__).with_name("seeded_service.py")
BUILT = ROOT / "rlhf_cluster" / "service" / "static" / "index.html"
BOUND_S = 60.0
BOUND_MS = 20_000

needs_page = pytest.mark.skipif(not BUILT.exists(), reason="the page was not built here")


@dataclass
class Seeded:
    """A service that can be killed and started again where it was, with what it knew."""

    data_dir: Path
    root_path: str = ""
    url: str = ""
    token: str = ""
    jobs: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None

    def start(self, *, port: int = 0) -> None:
        words = ["--port", str(port), "--data-dir", str(self.data_dir), "--root-path", self.root_path, "--live"]
        # Without models, whatever this machine has: what the page tells of a plan depends on them.
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "RLHF_CLUSTER_HOME": str(self.data_dir / "home")}
        self.process = subprocess.Popen(
            [sys.executable, str(SEEDED), *words], stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self.process.stdout is not None
        login, _, made = self.process.stdout.readline().partition(" ")
        self.url, _, self.token = login.partition("/login#token=")
        self.jobs = json.loads(made)

    @property
    def port(self) -> int:
        return int(self.url.removesuffix(self.root_path).rpartition(":")[2])

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(BOUND_S)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def get(self, path: str) -> Any:
        return self._ask("GET", path)

    def new_token(self, name: str, scope: str) -> str:
        return self.post("/tokens", {"name": name, "scopes": [scope]})["secret"]

    def post(self, path: str, body: Any) -> Any:
        return self._ask("POST", path, body)

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        import httpx

        headers = {"Authorization": f"Bearer {self.token}", "Host": f"127.0.0.1:{self.port}"}
        address = f"http://127.0.0.1:{self.port}/api/v1{path}"
        answer = httpx.request(method, address, headers=headers, json=body, timeout=BOUND_S, trust_env=False)
        answer.raise_for_status()
        return answer.json()


@contextmanager
def seeded(data_dir: Path, *, root_path: str = "") -> Iterator[Seeded]:
    service = Seeded(data_dir, root_path)
    service.start()
    try:
        yield service
    finally:
        service.kill()


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium, headless; a test without one is skipped."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@contextmanager
def person(chromium: Any, login_url: str, *, width: int = 1440, theme: str = "light") -> Iterator[Any]:
    """Somebody's tab, logged in by the address that `rlhf up` prints. What went wrong in it is in `page.complaints`."""
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
    page = context.new_page()
    page.set_default_timeout(BOUND_MS)
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on(
        "response", lambda answer: page.complaints.append(f"{answer.status} {answer.url}") if not answer.ok else None
    )
    page.goto(login_url)
    page.get_by_role("navigation", name="Main").wait_for()
    page.complaints.clear()  # whoever is not logged in yet is told so: 401
    try:
        yield page
    finally:
        context.close()


def wait_until(is_so: Any, *, bound_s: float = BOUND_S, told: str = "") -> None:
    deadline_s = time.monotonic() + bound_s
    while not is_so():
        assert time.monotonic() < deadline_s, told or "it did not come to be in time"
        time.sleep(0.1)
