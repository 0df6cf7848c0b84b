"""Run all contenders on one workload, interleaved, and print the table of their CPU-seconds against the bare limits.

Every run is a fresh process. A new contender is one line of `contenders()`: any command that takes the arguments of
`measure.parse_arguments` and prints one `Measurement` as its last line. Every run, also of a refused comparison, is
kept under benchmarks/results/ as JSON.

    python benchmarks/run.py --model DIR --workload lite --rounds 3 --trl-python ~/trl/bin/python

`--allocator keep` (the default) lets glibc keep freed memory, for all contenders alike. Without it every step gives
its buffers back to the kernel and faults them in again, which costs the bare torch step 10 to 35 % more.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from measure import Measurement
from protocol import Round, UnsteadyMachine, compare, format_table, mirrored
from workloads import WORKLOADS

HERE = Path(__file__).parent
RESULTS = HERE / "results"
RUN_TIMEOUT_S = 1800
ALLOCATORS = {
    "default": {},
    "keep": {"MALLOC_TRIM_THRESHOLD_": str(16 << 30), "MALLOC_MMAP_THRESHOLD_": str(16 << 30)},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A command to measure."""

    name: str
    command: tuple[str, ...]
    is_bare: bool = False
    """Part of the bare limit: the cost of a step with nothing but the libraries."""
    is_learner_only: bool = False


def contenders(*, python: str, trl_python: str | None) -> list[Contender]:
    """All that can run here; TRL lives in its own virtual environment and is left out without one."""
    torch = (python, str(HERE / "bare_torch.py"))
    listed = [
        Contender(name="bare_vllm", command=(python, str(HERE / "bare_vllm.py")), is_bare=True),
        Contender(name="bare_torch", command=(*torch, "--variant=pure"), is_bare=True, is_learner_only=True),
        Contender(name="torch_autocast", command=(*torch, "--variant=autocast"), is_learner_only=True),
    ]
    ours = (python, str(HERE / "ours.py"))
    listed += [
        Contender(name="ours", command=(*ours, "--variant=ray")),
        Contender(name="ours_worker", command=(*ours, "--variant=worker")),
        Contender(name="ours_learner", command=(*ours, "--variant=learner"), is_learner_only=True),
        Contender(name="ours_learner_padded", command=(*ours, "--variant=learner_padded"), is_learner_only=True),
    ]
    if trl_python is not None:
        listed.append(Contender(name="trl_hf", command=(trl_python, str(HERE / "peer_trl.py"), "--variant=pure")))
    return listed


class ContenderFailed(RuntimeError):
    """A contender ended with an error, printed no measurement or ran out of time."""


def run_contender(
    contender: Contender, *, model: Path, workload: str, num_steps: int, environment: dict[str, str]
) -> tuple[Measurement, float]:
    """One run: its measurement and the CPU-seconds of the whole process, start-up included."""
    command = [*contender.command, "--model", str(model), "--workload", workload, "--steps", str(num_steps), "--json"]
    return run_command(contender.name, command, environment=environment)


def run_command(name: str, command: list[str], *, environment: dict[str, str]) -> tuple[Measurement, float]:
    """A contender's command in its own process group. Raises `ContenderFailed`."""
    cpu_s_before = _children_cpu_s()
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, log = process.communicate(timeout=RUN_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise ContenderFailed(f"{name} took longer than {RUN_TIMEOUT_S} s; give fewer --steps") from error
    if process.returncode != 0 or not output.strip():
        raise ContenderFailed(f"{name} ended with {process.returncode}; the end of its log:\n{log[-2000:]}")
    return Measurement.from_json(output.strip().splitlines()[-1]), _children_cpu_s() - cpu_s_before


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run_round(listed: list[Contender], *, arguments: argparse.Namespace) -> Round:
    """One mirrored round, with a line of progress on stderr for each run."""
    by_name = {contender.name: contender for contender in listed}
    runs: dict[str, list[Measurement]] = {name: [] for name in by_name}
    for name in mirrored(list(by_name)):
        measurement, process_cpu_s = run_contender(
            by_name[name],
            model=arguments.model,
            workload=arguments.workload,
            num_steps=arguments.steps,
            environment=ALLOCATORS[arguments.allocator],
        )
        runs[name].append(measurement)
        line = f"{name}: {measurement.cpu_s:.2f} CPU-s a step, {process_cpu_s:.1f} the whole process"
        print(line, f"(load {os.getloadavg()[0]:.1f})", file=sys.stderr)
    return runs


def save(rounds: list[Round], *, arguments: argparse.Namespace, outcome: object) -> Path:
    """Write everything measured to a new file under results/."""
    now = datetime.now(UTC)
    document = {
        "at": now.isoformat(timespec="seconds"),
        "workload": arguments.workload,
        "allocator": arguments.allocator,
        "machine": {"cpus": os.cpu_count(), "processor": _processor_name(), "load": os.getloadavg()},
        "outcome": outcome,
        "rounds": [{name: [asdict(run) for run in runs] for name, runs in a_round.items()} for a_round in rounds],
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{arguments.workload}-{now:%Y%m%dT%H%M%S}.json"
    path.write_text(json.dumps(document, indent=1))
    return path


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def parse_command_line() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="directory of a Hugging Face checkpoint")
    parser.add_argument("--workload", choices=WORKLOADS, default="lite")
    parser.add_argument("--steps", type=int, default=3, help="measured steps of a run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="names of contenders; all by default")
    parser.add_argument("--allocator", choices=ALLOCATORS, default="keep")
    parser.add_argument("--trl-python", help="the python of an environment that holds TRL (see peer_trl.py)")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error(f"--rounds {arguments.rounds}: at least 1 is needed")
    return arguments


def chosen_contenders(arguments: argparse.Namespace) -> list[Contender]:
    """Those asked for that can do the workload. Ends the program on a name that is not there."""
    listed = contenders(python=sys.executable, trl_python=arguments.trl_python)
    names = [contender.name for contender in listed]
    unknown = sorted(set(arguments.only or ()) - set(names))
    if unknown:
        sys.exit(f"--only {' '.join(unknown)}: not here; choose from {', '.join(names)} (trl_hf needs --trl-python)")
    return [
        contender
        for contender in listed
        if (not arguments.only or contender.name in arguments.only)
        and (contender.is_learner_only or not WORKLOADS[arguments.workload].is_ragged)
    ]


def main() -> None:
    arguments = parse_command_line()
    listed = chosen_contenders(arguments)
    bare = [contender.name for contender in listed if contender.is_bare]
    if not bare:
        sys.exit("--only names no bare contender, so there is no limit to compare with; add bare_vllm or bare_torch")
    started = time.monotonic()
    rounds = [run_round(listed, arguments=arguments) for _ in range(arguments.rounds)]
    try:
        rows = compare(rounds, bare=bare)
    except UnsteadyMachine as refusal:
        path = save(rounds, arguments=arguments, outcome={"refused": str(refusal)})
        sys.exit(f"refused: {refusal}\nThe runs are in {path}.")
    path = save(rounds, arguments=arguments, outcome={"rows": [asdict(row) for row in rows]})
    print(format_table(rows, bare=bare))
    print(f"{arguments.rounds} rounds in {time.monotonic() - started:.0f} s; the runs are in {path}")


if __name__ == "__main__":
    main()
