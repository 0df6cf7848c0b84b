"""What a job generates after its last step, or instead of any: the tasks of its tables, in their order."""

from __future__ import annotations

import asyncio
from typing import Protocol

from rlhf_cluster.driver.collect import PreferenceCollector
from rlhf_cluster.driver.revise import AnswerReviser
from rlhf_cluster.driver.workbench import Workbench


class Task(Protocol):
    """Goes on where a former driver of the job left off."""

    async def run(self, stop: asyncio.Event) -> bool:
        """Whether all is done; not, when `stop` was set on the way."""
        ...


def tasks_of(bench: Workbench) -> tuple[Task, ...]:
    """Raises `ConfigError` or `DataError` for what a table names and is not there."""
    job = bench.job
    collector = PreferenceCollector(bench, job.preferences) if job.preferences else None
    reviser = AnswerReviser(bench, job.constitution) if job.constitution else None
    return tuple(task for task in (collector, reviser) if task is not None)
