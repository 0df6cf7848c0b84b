"""One question to the driver of a job, wherever the job is: in a directory, or under a service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_cluster.cli.service import connected, show_answer

if TYPE_CHECKING:
    from rlhf_cluster.client import Client
    from rlhf_cluster.wire.jobs import Command


def ask_driver(
    job: Path | str,
    command: Mapping[str, Any],
    post: Callable[[Client, str], Command],
    *,
    within_s: float,
    output: str,
) -> None:
    """Show the driver's answer. `command` is for the driver of a directory, in the form of `driver/mailbox.py`; `post`
    asks a service the same about a job id."""
    if isinstance(job, Path):
        from rlhf_cluster.cli.control import tell
        from rlhf_cluster.driver.mailbox import from_json

        tell(job, from_json(dict(command)), within_s=within_s, output=output)
        return
    with connected() as client:
        asked = post(client, client.find(job).job_id)
        show_answer(client, asked, within_s=within_s, output=output)
