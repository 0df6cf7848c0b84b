"""Moments, spans and figures in tables."""

from __future__ import annotations

import shutil
import sys
import textwrap
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlhf_cluster.driver.observers.excerpt import excerpt
from rlhf_cluster.driver.observers.figures import figure

if TYPE_CHECKING:
    from rlhf_cluster.records.members import JobView
    from rlhf_cluster.wire.jobs import Job

INDENT, MIN_TEXT = 12, 20


def span(seconds: float) -> str:
    """A time span in the unit that suits it.

    >>> [span(0.4), span(75), span(8000), span(200000)]
    ['0 s', '75 s', '2.2 h', '2.3 days']
    """
    seconds = max(seconds, 0.0)  # clocks of two machines differ
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"


def progress(job: Job | JobView) -> str:
    """`step 3 of 20`, or `128 of 640 prompts` of a job that only generates."""
    count = f"{job.step} of {job.num_steps}"
    return f"step {count}" if job.unit == "steps" else f"{count} {job.unit}"


def ago(time_s: float | None, *, now_s: float) -> str:
    """
    >>> ago(940.0, now_s=1000.0), ago(None, now_s=1000.0)
    ('60 s ago', '')
    """
    return "" if time_s is None else f"{span(now_s - time_s)} ago"


def moment(time_s: float | None) -> str:
    """Local date and time, or nothing."""
    return "" if time_s is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_s))


def clock(time_s: float) -> str:
    """Local time of the day."""
    return time.strftime("%H:%M:%S", time.localtime(time_s))


def number(value: float | None) -> str:
    """A figure, or a dash where there is none, or none that is finite.

    >>> number(0.41237), number(None)
    ('0.4124', '-')
    """
    return "-" if value is None else figure(value)


def gib(num_bytes: float) -> str:
    """
    >>> gib(3 * 2**29), gib(0)
    ('1.5 GiB', '')
    """
    return f"{num_bytes / 2**30:.1f} GiB" if num_bytes else ""


def columns(lines: list[tuple[str, str]]) -> str:
    """Names and what they are, a line each, which a terminal gets folded; what is empty is left out.

    >>> print(columns([("job", "words"), ("message", ""), ("step", "3 of 20")]))
    job         words
    step        3 of 20
    """
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    return "\n".join(f"{name:<{INDENT}}{fold(text, width)}" for name, text in lines if text)


def fold(text: str, width: int | None) -> str:
    """In lines of at most `width` with the beginning of each `INDENT` further in; as it is where there is no width.

    >>> print("job".ljust(INDENT) + fold("a sentence that goes on", 32))
    job         a sentence that goes
                on
    """
    if width is None or len(text) + INDENT <= width:
        return text
    room = max(width - INDENT, MIN_TEXT)
    lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
    return f"\n{' ' * INDENT}".join(lines)


def rights(scopes: Sequence[str]) -> str:
    """
    >>> rights(["admin"]), rights(["read", "label"])
    ('do everything', 'read, label')
    """
    return "do everything" if "admin" in scopes else ", ".join(scopes)


def sizing(
    what: str, *, mode: str, size: int, bounds: tuple[int | None, int | None], recommended: int | None, reason: str
) -> tuple[str, str]:
    """The policy that chooses how many of `what` there are, or what one would choose; for `columns`.

    >>> sizing("rollout workers", mode="auto", size=2, bounds=(1, 8), recommended=5, reason="the learner waits")
    ('policy', '1 to 8 rollout workers: the learner waits')
    >>> sizing("rollout workers", mode="manual", size=2, bounds=(None, None), recommended=5, reason="the learner waits")
    ('advice', '5 instead of 2 rollout workers: the learner waits')
    """
    because = f": {excerpt(reason, width=300)}" if reason else ""
    if mode == "auto":
        return "policy", f"{bounds[0]} to {bounds[1]} {what}{because}"
    if not recommended:
        return "advice", ""
    if recommended == size:
        return "advice", f"{size} is the right number of {what}"
    return "advice", f"{recommended} instead of {size} {what}{because}"
