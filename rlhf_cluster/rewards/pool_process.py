"""Runs in the processes of `pool.py`: holds the loaded functions and calls them. Imports no more than it must.

Everything that goes back is a plain value of ours, so that no reward can break the way back.
"""

from __future__ import annotations

import asyncio
import inspect
import multiprocessing
import multiprocessing.connection
import multiprocessing.process
import os
import pickle
import resource
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from rlhf_cluster.errors import ConfigError
from rlhf_cluster.rewards import table
from rlhf_cluster.rewards.sample import Failure, Outcome, RewardSample, failure_of, outcome_of
from rlhf_cluster.tied import tie_to_parent


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionSpec:
    """What a process needs to load one reward."""

    label: str
    function: str
    args: Mapping[str, Any]


_functions: dict[str, Callable[[RewardSample], Any]] = {}
_load_errors: dict[str, str] = {}


def initialise(specs: tuple[FunctionSpec, ...], max_memory_bytes: int | None) -> None:
    """Load every function, before and outside of any time limit. What fails to load is kept as a message.

    A raise in here would leave the pool without processes and without a reason.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in a child process"
    assert parent.pid is not None, "it runs"
    # By the kernel, where it can: what holds the GIL, as a regular expression does, holds our own thread up too.
    with suppress(OSError):
        tie_to_parent(parent.pid)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if max_memory_bytes is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        bound = max_memory_bytes if hard == resource.RLIM_INFINITY else min(max_memory_bytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))
    for spec in specs:
        try:
            _functions[spec.label] = table.load(spec.function, spec.args)
        except ConfigError as error:
            _load_errors[spec.label] = str(error)
        except Exception as error:  # noqa: BLE001
            # Foreign code at import time may raise anything; the job refuses to start with it.
            _load_errors[spec.label] = f"reward function {spec.function!r}: {failure_of(error).message}"


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    """A reward that hangs would otherwise outlive a server that was killed."""
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def load_errors() -> dict[str, str]:
    """By reward, why it could not be loaded."""
    return _load_errors


def score_samples(label: str, pickled_samples: bytes) -> list[Outcome] | Failure:
    """Call one reward on each sample; coroutines of async functions run together.

    A single `Failure` stands for all of the samples: the function is not there, or they did not survive the journey.
    """
    if label not in _functions:
        return Failure(kind="unavailable", message=_load_errors[label])
    try:
        samples = pickle.loads(pickled_samples)
    except Exception as error:  # noqa: BLE001  Unpickling runs foreign code, which this process may even lack.
        return failure_of(error)
    results = [_call(_functions[label], sample) for sample in samples]
    if any(inspect.isawaitable(result) for result in results):
        return asyncio.run(_await_all(results))
    return [_outcome(result) for result in results]


def _call(function: Callable[[RewardSample], Any], sample: RewardSample) -> Any:
    try:
        return function(sample)
    except BaseException as error:  # noqa: BLE001  Also SystemExit and the like: none of it may reach the server.
        return failure_of(error)


async def _await_all(results: list[Any]) -> list[Outcome]:
    return list(await asyncio.gather(*map(_await, results)))


async def _await(result: Any) -> Outcome:
    try:
        return _outcome(await result if inspect.isawaitable(result) else result)
    except BaseException as error:  # noqa: BLE001  As in `_call`.
        return failure_of(error)


def _outcome(result: Any) -> Outcome:
    return result if isinstance(result, Failure) else outcome_of(result)
