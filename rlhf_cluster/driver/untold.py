"""Steps that a former driver was killed in, told by the next one: exactly one `StepDone` a step.

A batch is in the ledger before it is learned, and its step in the journal after that. What lies in between belongs to
the job and was never told; of what the dead driver measured only the batch, and what a replay gives again, is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_cluster.driver.clock import Clock
from rlhf_cluster.driver.figures import batch_figures
from rlhf_cluster.driver.observers import journal
from rlhf_cluster.errors import StorageError
from rlhf_cluster.records import Batch, StepReport
from rlhf_cluster.records.events import Event, Notice, StepDone

if TYPE_CHECKING:
    from rlhf_cluster.driver.ledger.ledger import Ledger


def tell_untold(
    ledger: Ledger,
    *,
    job_dir: Path,
    replayed: Mapping[int, tuple[Batch, StepReport]],
    emit: Callable[[Event], None],
    clock: Clock,
) -> None:
    """Oldest first; `replayed` is by step, counted from 0. A step whose batch is settled was told before its
    checkpoint was written.

    Call it before the driver's own first step, and where the job has a journal that the events go to.
    """
    known = sorted(ledger.history.steps)
    told = journal.steps_done(job_dir, after=known[0]) if known else None
    if told is None:
        return
    for number in (each for each in known if each + 1 not in told):
        if number in replayed:
            batch, report = replayed[number]
            emit(_step_done(batch, report.metrics, clock=clock))
            continue
        try:
            # Without its credit: that may have been the work of a critic as it was then.
            batch = Batch(step=number, groups=ledger.groups(number))
        except StorageError as error:
            text = f"what step {number + 1} measured was never told and is lost: {error}"
            emit(Notice(time_s=clock.time(), step=ledger.history.step, level="warning", text=text))
        else:
            emit(_step_done(batch, {}, clock=clock))


def _step_done(batch: Batch, metrics: Mapping[str, float], *, clock: Clock) -> StepDone:
    return StepDone(
        time_s=clock.time(),
        step=batch.step + 1,
        version=batch.step + 1,
        metrics=batch_figures(batch) | dict(metrics),
        groups=batch.groups,
    )
