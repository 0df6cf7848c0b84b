"""One attempt from its registration to its end: the job's directory made, its driver run, everything carried over.

service  <- register, ingest, samples, answers, ended -  relay  - starts, stops, kills ->  driver
         -  the whole job, commands, "superseded"     ->        <- job_dir/* -
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rlhf_cluster.config.load import check
from rlhf_cluster.driver.run import write_job_file
from rlhf_cluster.driver.sizes import keep_chosen
from rlhf_cluster.errors import ConfigError, RlhfError, StorageError
from rlhf_cluster.relay import bundle
from rlhf_cluster.relay.commands import Commands
from rlhf_cluster.relay.driver_process import DriverEnd, DriverProcess
from rlhf_cluster.relay.link import Link, Refused, Superseded, Unreachable
from rlhf_cluster.relay.shipping import EVERY_S, Shipping
from rlhf_cluster.wire.relay import Ended, Ingest, Register, Registered

AGAIN_S = 2.0
FAILED = 1

log = logging.getLogger(__name__)
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    register_s: float = 300.0
    """For the service to be reached at the beginning."""
    stop_s: float = 25.0
    """For a driver that is told to stop, until it is killed. Less than Ray gives the relay, which has to tell of it."""
    exit_s: float = 120.0
    """For a driver that has told its job's end, until its process has ended too; then it is killed."""
    patience_s: float = 3600.0
    """For the service to come back when the driver has ended. Past that the rest stays on disk: the service takes the
    attempt for lost, and the next one carries it over."""


async def run_attempt(link: Link, *, bounds: Bounds | None = None) -> int:
    """Returns the driver's exit code, or `FAILED` where there was no driver or it was superseded."""
    bounds = bounds or Bounds()
    who = Register(host=socket.gethostname(), process_id=os.getpid())
    registered = await _within(bounds.register_s, lambda: link.register(who))
    log.info("attempt %d of %s has registered", registered.attempt, registered.job_id)
    try:
        async with _kept_alive(link, registered):
            job_dir = await asyncio.to_thread(prepare, registered, ray_address=os.environ.get("RAY_ADDRESS"))
            code_dir = await _code(link, job_dir, registered, bounds=bounds)
            shipping = await asyncio.to_thread(Shipping, job_dir, link, registered)
        return await _drive(job_dir, link, shipping, code_dir=code_dir, bounds=bounds)
    except Superseded as error:
        log.warning("%s; its driver was ended", error)
        return FAILED
    except Unreachable:
        raise
    except RlhfError as error:
        report = _failure(error)
        await _within(bounds.patience_s, lambda: link.ended(report))
        raise


@asynccontextmanager
async def _kept_alive(link: Link, registered: Registered) -> AsyncGenerator[None]:
    """The lease began with the registration; code to be fetched, or a long journal to be read, may take longer."""

    async def renew() -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            with contextlib.suppress(Unreachable):
                await link.ingest(Ingest(first_entry=registered.num_entries, entries=[]))

    renewing = asyncio.create_task(renew())
    try:
        yield
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)


def prepare(registered: Registered, *, ray_address: str | None) -> Path:
    """The job's directory with its job file, as `rlhf resume` needs it. Raises `ConfigError`, `StorageError`."""
    config = _on_cluster(registered.config, ray_address)
    # Code of the job's own is for the driver to import; here it would run beside the attempt's token.
    job = check(config, source=f"job {registered.job_id}", runs_outside_code=False)
    job_dir = Path(registered.job_dir)
    try:
        job_dir.mkdir(parents=True, exist_ok=True)
        write_job_file(job_dir, job)
        keep_chosen(job_dir, job)  # the service has heard of every wish, the former driver perhaps not
    except OSError as error:
        raise StorageError(f"{job_dir} cannot be written: {error.strerror}") from error
    return job_dir


def _on_cluster(config: Mapping[str, Any], ray_address: str | None) -> dict[str, Any]:
    """A job on Ray runs on the cluster that it was submitted to."""
    if not ray_address or config.get("runtime") == "local":
        return dict(config)
    return {**config, "ray": {**config.get("ray", {}), "address": ray_address}}


async def _code(link: Link, job_dir: Path, registered: Registered, *, bounds: Bounds) -> Path | None:
    sha256 = registered.bundle_sha256
    return await _within(bounds.register_s, lambda: bundle.fetch(link, job_dir, sha256=sha256)) if sha256 else None


async def _drive(job_dir: Path, link: Link, shipping: Shipping, *, code_dir: Path | None, bounds: Bounds) -> int:
    commands = Commands(job_dir, link)
    driver = await DriverProcess.start(job_dir, code_dir=code_dir)
    try:
        with _stopped_by_signals(driver, grace_s=bounds.stop_s):
            orders = commands.receive(kill=driver.kill)
            ending = _end_in_time(shipping, driver, bound_s=bounds.exit_s)
            beside = (shipping.run(), shipping.run_samples(), orders, commands.answer(), ending)
            end = await _until_first(driver.wait(), *beside)
    finally:
        driver.kill()
        await driver.wait()
    await _within(bounds.patience_s, lambda: _finish(link, shipping, commands, end))
    return end.code


async def _end_in_time(shipping: Shipping, driver: DriverProcess, *, bound_s: float) -> None:
    """An interpreter waits for all its threads before it exits, also for one that hangs."""
    await shipping.has_ended.wait()
    await asyncio.sleep(bound_s)
    log.warning("the driver has told its end and does not exit: it is killed")
    driver.kill()
    await driver.wait()


async def _finish(link: Link, shipping: Shipping, commands: Commands, end: DriverEnd) -> None:
    await shipping.drain()
    await commands.send_answers()
    report = end.report(said=shipping.said)
    with contextlib.suppress(Superseded):  # it was told, and the answer got lost on its way
        await link.ended(report)
    log.info("the driver has ended: %s, exit code %d: %s", report.outcome, report.exit_code, report.message)


def _failure(error: RlhfError) -> Ended:
    """Of the relay itself: nothing was wrong with a driver, or there was none."""
    is_final = isinstance(error, ConfigError | Refused)
    return Ended(outcome="failed", exit_code=FAILED, message=str(error)[:10_000], may_be_retried=not is_final)


async def _until_first(end: Awaitable[Result], *beside: Awaitable[None]) -> Result:
    """What `end` gives. An error of what runs beside it is raised at once; all of it is over on return."""
    ending = asyncio.ensure_future(end)
    others = [asyncio.ensure_future(work) for work in beside]
    try:
        await asyncio.wait([ending, *others], return_when=asyncio.FIRST_COMPLETED)
        for done in (other for other in others if other.done()):
            done.result()
        return await ending
    finally:
        for task in (ending, *others):
            task.cancel()
        await asyncio.gather(ending, *others, return_exceptions=True)


async def _within(bound_s: float, ask: Callable[[], Awaitable[Result]]) -> Result:
    """Ask until the service answers. Raises `Unreachable` when it has not within `bound_s`."""
    deadline_s = time.monotonic() + bound_s
    while True:
        try:
            return await ask()
        except Unreachable as error:
            if time.monotonic() >= deadline_s:
                raise
            log.warning("%s; it is asked again", error)
        await asyncio.sleep(AGAIN_S)


@contextmanager
def _stopped_by_signals(driver: DriverProcess, *, grace_s: float) -> Generator[None]:
    """Whoever ends the relay, such as Ray when a submission is stopped, ends the driver after its step."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: driver.stop(grace_s=grace_s))
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
