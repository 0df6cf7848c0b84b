"""Lines of the log files in a job's directory, and those that are written while one looks."""

from __future__ import annotations

import time
from pathlib import Path

import click

from rlhf_cluster.cli.failure import NotFound
from rlhf_cluster.cli.output import emit_line
from rlhf_cluster.cli.service import detaching
from rlhf_cluster.driver.observers.excerpt import printable

LOOK_EVERY_S = 0.5
MAX_BYTES = 1 << 20
"""Of a file's end that is read to find its last lines."""


def show_logs(
    job_dir: Path, *, follow: bool, component: str | None, search: str | None, tail: int, output: str
) -> None:
    """The last `tail` lines of every file, and with `follow` what comes until no driver runs any more."""
    from rlhf_cluster.cli.control import driver_runs

    found = [path for path in _files(job_dir) if component in (None, path.stem)]
    if not found:
        has = ", ".join(path.stem for path in _files(job_dir)) or "none"
        raise NotFound(f"{job_dir} has no log{'' if component is None else f' of {component!r}'}; it has {has}")
    places: dict[Path, int] = {}
    for path in found:
        lines, places[path] = _read(path, max(0, path.stat().st_size - MAX_BYTES))
        _show(path.stem, [line for line in lines if (search or "") in line][-tail:], output=output)
    if not follow:
        return
    with detaching(f"the job goes on; `rlhf logs -f {job_dir}` shows its lines again"):
        goes_on = True
        while goes_on:
            goes_on = driver_runs(job_dir)
            for path in (each for each in _files(job_dir) if component in (None, each.stem)):
                lines, places[path] = _read(path, places.get(path, 0))
                _show(path.stem, [line for line in lines if (search or "") in line], output=output)
            time.sleep(LOOK_EVERY_S if goes_on else 0)


def _files(job_dir: Path) -> list[Path]:
    return sorted((job_dir / "logs").glob("*.log"))


def _read(path: Path, start: int) -> tuple[list[str], int]:
    """Whole lines from byte `start` on, and where the next one begins."""
    with path.open("rb") as file:
        file.seek(start)
        whole, _, _ = file.read().rpartition(b"\n")
    if not whole:
        return [], start
    return whole.decode("utf-8", "replace").split("\n"), start + len(whole) + 1


def _show(component: str, lines: list[str], *, output: str) -> None:
    for line in lines:
        if output != "table":
            emit_line({"component": component, "line": line})
        else:
            click.echo(f"{component}  {printable(line)}")
