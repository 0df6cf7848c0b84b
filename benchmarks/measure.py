"""What one contender measures and prints: CPU-seconds of every step, over its process and all that it started.

CPU-seconds (user + system) hold to about 10 % on a shared machine where wall time moves fivefold. A contender prints
one JSON line, a `Measurement`; `run.py` interleaves contenders and compares their lines. Needs psutil and nothing else,
so it runs inside the virtual environment of a peer too.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
from workloads import WORKLOADS, Workload

# One OpenMP thread that sleeps while it waits: spinning threads multiply CPU-seconds up to fivefold on a busy machine.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_NO_USAGE_STATS": "1",
}


def pin_environment() -> None:
    """Set what decides the cost of a step. Call it before torch or vllm is imported: they read it once."""
    os.environ.update(ENVIRONMENT)


def tree_cpu_s() -> float:
    """CPU-seconds so far of this process, its live descendants and the dead ones that were waited for."""
    total = sum(_rusage_s(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    for process in psutil.Process().children(recursive=True):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:  # ended between the listing and the look; its parent has its seconds now
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def _rusage_s(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """What one step cost."""

    cpu_s: float
    wall_s: float
    parts: dict[str, float]
    """CPU-seconds by named part of the step (gen, train, ...); what no part claims is the contender's overhead."""


class Meter:
    """Costs of successive steps; the caller says where a step and a part of it begin and end."""

    def __init__(self) -> None:
        self.steps: list[StepCost] = []
        self._parts: dict[str, float] = {}

    @contextmanager
    def step(self) -> Iterator[None]:
        """One whole step. Work between two steps is not counted."""
        self.begin_step()
        yield
        self.end_step()

    def begin_step(self) -> None:
        self._parts = {}
        self._cpu_s, self._wall_s = tree_cpu_s(), time.perf_counter()

    def end_step(self) -> None:
        cpu_s, wall_s = tree_cpu_s() - self._cpu_s, time.perf_counter() - self._wall_s
        self.steps.append(StepCost(cpu_s=cpu_s, wall_s=wall_s, parts=self._parts))

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A part of the current step; a part entered twice adds up."""
        started = tree_cpu_s()
        yield
        self._parts[name] = self._parts.get(name, 0.0) + tree_cpu_s() - started


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One run of one contender: its JSON line."""

    contender: str
    workload: str
    steps: list[StepCost]
    """Measured steps only: warm-up is dropped."""
    startup_cpu_s: float
    """From the start of the process to the first measured step: imports, model load, warm-up."""
    peak_rss_mib: float
    """Of the contender's own process; a peer that starts others has their memory besides."""
    generated_tokens: int
    total_tokens: int
    notes: dict[str, object] = field(default_factory=dict)

    @property
    def cpu_s(self) -> float:
        """Median CPU-seconds of a step."""
        return statistics.median(step.cpu_s for step in self.steps)

    @property
    def parts(self) -> dict[str, float]:
        """Median CPU-seconds of every part."""
        names = self.steps[0].parts
        return {name: statistics.median(step.parts.get(name, 0.0) for step in self.steps) for name in names}

    def to_json(self) -> str:
        """One line; `from_json` reads it back."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Measurement:
        fields = json.loads(line)
        return cls(**{**fields, "steps": [StepCost(**step) for step in fields["steps"]]})


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What every contender is told."""

    model: Path
    workload: Workload
    num_steps: int
    as_json: bool
    variant: str


def parse_arguments(description: str | None, *, variants: tuple[str, ...], learner_only: bool = False) -> Arguments:
    """The command line common to all contenders. `variants`: the first is the default."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [name for name, workload in WORKLOADS.items() if learner_only or not workload.is_ragged]
    parser.add_argument("--model", type=Path, required=True, help="directory of a Hugging Face checkpoint")
    parser.add_argument("--workload", choices=names, default="lite")
    parser.add_argument("--steps", type=int, default=3, help="measured steps, after one that is dropped")
    parser.add_argument("--variant", choices=variants, default=variants[0])
    parser.add_argument("--json", action="store_true", help="print one JSON line and nothing else on stdout")
    given = parser.parse_args()
    if not (given.model / "config.json").is_file():
        parser.error(f"--model {given.model} holds no config.json; give the directory of a Hugging Face checkpoint")
    if given.steps < 1:
        parser.error(f"--steps {given.steps}: at least 1 is needed")
    return Arguments(
        model=given.model,
        workload=WORKLOADS[given.workload],
        num_steps=given.steps,
        as_json=given.json,
        variant=given.variant,
    )


def measure_steps(
    contender: str, arguments: Arguments, *, run_step: Callable[[int, Meter], None], notes: dict[str, object]
) -> Measurement:
    """Run step 0 as warm-up, then `num_steps` measured ones; `run_step(step, meter)` names its parts on the meter."""
    meter = Meter()
    with meter.step():
        run_step(0, meter)
    startup_cpu_s = tree_cpu_s()
    for step in range(1, arguments.num_steps + 1):
        with meter.step():
            run_step(step, meter)
    return summarize(contender, arguments, steps=meter.steps[1:], startup_cpu_s=startup_cpu_s, notes=notes)


def summarize(
    contender: str, arguments: Arguments, *, steps: list[StepCost], startup_cpu_s: float, notes: dict[str, object]
) -> Measurement:
    """The measurement of steps that were metered by the caller."""
    return Measurement(
        contender=contender,
        workload=arguments.workload.name,
        steps=steps,
        startup_cpu_s=startup_cpu_s,
        peak_rss_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        generated_tokens=arguments.workload.generated_tokens,
        total_tokens=arguments.workload.total_tokens,
        notes={"variant": arguments.variant, "model": arguments.model.name, **notes},
    )


def report(measurement: Measurement, *, as_json: bool) -> None:
    """Print the JSON line, or a few lines for a person."""
    if as_json:
        print(measurement.to_json())
        return
    steps_s = " ".join(f"{step.cpu_s:.2f}" for step in measurement.steps)
    parts = " ".join(f"{name} {cpu_s:.2f}" for name, cpu_s in measurement.parts.items())
    print(f"{measurement.contender} {measurement.workload}: {measurement.cpu_s:.2f} CPU-s a step ({steps_s}); {parts}")
    print(f"  {measurement.generated_tokens / measurement.cpu_s:.1f} generated tokens per CPU-s", end=", ")
    print(f"{measurement.total_tokens / measurement.cpu_s:.1f} tokens per CPU-s, prompts included")
    print(f"  start-up {measurement.startup_cpu_s:.1f} CPU-s, peak {measurement.peak_rss_mib:.0f} MiB")
    print(f"  {measurement.notes}", file=sys.stderr)
