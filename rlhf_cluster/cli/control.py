"""What the verbs share that ask something of a running job: its directory, its driver, a question and the answer."""

from __future__ import annotations

import time
from pathlib import Path

from rlhf_cluster.cli.failure import Refused, Unavailable
from rlhf_cluster.cli.output import emit
from rlhf_cluster.driver import mailbox
from rlhf_cluster.driver.claim import current_driver
from rlhf_cluster.driver.mailbox import Answer
from rlhf_cluster.driver.observers.excerpt import printable
from rlhf_cluster.driver.status_file import read_view
from rlhf_cluster.errors import StorageError
from rlhf_cluster.records.commands import Command

OUTCOMES = ("succeeded", "failed", "interrupted")
"""States of a view that are an end."""
LOOK_EVERY_S = 1.0
"""How often it is looked whether the driver that is waited for still runs."""


def ask(job_dir: Path, command: Command, *, within_s: float) -> str:
    """The driver's sentence, fit for a terminal.

    Raises `Refused` when it says no, `Unavailable` when none is running or it does not answer in time. The command is
    then withdrawn; what says how many workers there should be stays, for the next driver or until this one comes to it.
    """
    stays = isinstance(command, mailbox.SIZES)
    if not driver_runs(job_dir) and not (stays and _goes_on(job_dir)):
        raise Unavailable(no_driver(job_dir))
    try:
        given = _post_and_wait(job_dir, command, within_s=within_s, stays=stays)
    except OSError as error:
        raise StorageError(f"cannot put a command into {job_dir / 'control'}: {error.strerror or error}") from error
    if given is None:
        raise Unavailable(_no_answer(job_dir, within_s=within_s, stays=stays))
    if not given.ok:
        raise Refused(printable(given.text))
    return printable(given.text)


def tell(job_dir: Path, command: Command, *, within_s: float, output: str) -> None:
    """Ask, and show the answer."""
    text = ask(job_dir, command, within_s=within_s)
    emit(mailbox.to_json(command) | {"answer": text}, output=output, text=lambda: text)


def driver_runs(job_dir: Path) -> bool:
    """Whether a driver of the job runs, or may: of one on another host only its release can be seen."""
    driver = current_driver(job_dir)
    return driver is not None and driver.is_alive is not False


def no_driver(job_dir: Path) -> str:
    if not _goes_on(job_dir):
        return f"the job of {job_dir} has ended: all its steps are done"
    return f"no driver is running in {job_dir}; `rlhf resume {job_dir}` goes on with the job"


def _goes_on(job_dir: Path) -> bool:
    """Whether there can be a next driver."""
    view = read_view(job_dir)
    return view is None or view.state != "succeeded"


def _post_and_wait(job_dir: Path, command: Command, *, within_s: float, stays: bool) -> Answer | None:
    command_id = mailbox.post(job_dir, command, wanted_until_s=None if stays else time.time() + within_s)
    try:
        given = _wait(job_dir, command_id, within_s=within_s)
    except KeyboardInterrupt:
        mailbox.withdraw(job_dir, command_id)
        raise
    if given is None and not stays:
        mailbox.withdraw(job_dir, command_id)
    return given


def _wait(job_dir: Path, command_id: str, *, within_s: float) -> Answer | None:
    deadline_s = time.monotonic() + within_s
    while (left_s := deadline_s - time.monotonic()) > 0:
        if not driver_runs(job_dir):
            return mailbox.answer(job_dir, command_id)  # perhaps the last thing it did
        given = mailbox.answer(job_dir, command_id, within_s=min(left_s, LOOK_EVERY_S))
        if given is not None:
            return given
    return None


def _no_answer(job_dir: Path, *, within_s: float, stays: bool) -> str:
    if not driver_runs(job_dir):
        return no_driver(job_dir) + (", and then this command holds" if stays else "")
    kept = "the command stays until it does" if stays else "the command is withdrawn, if it was not begun"
    return f"the driver has not answered within {within_s:g} s; {kept}. `rlhf status {job_dir}` shows what it does"
