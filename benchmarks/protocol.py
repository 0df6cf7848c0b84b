"""How runs of contenders are ordered and compared: mirrored rounds, ratios inside a round, refusal when it shakes.

A round runs A B C C B A, so a slow drift of the machine weighs on all alike. Ratios are taken inside a round and their
median over rounds is reported with the range. When the two runs of a bare contender in one round differ by more than
15 %, the machine decides the figures and not the code: `compare` refuses.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from measure import Measurement

MAX_BARE_DIFFERENCE = 0.15

Round = Mapping[str, Sequence[Measurement]]
"""The runs of one mirrored round by contender: two of each."""


class UnsteadyMachine(RuntimeError):
    """Two bare runs of one round differ too much for any ratio to mean something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One contender in the table."""

    contender: str
    cpu_s: float
    """CPU-seconds of a step, median over all runs."""
    generated_tokens_per_cpu_s: float
    total_tokens_per_cpu_s: float
    efficiency: float
    """CPU-seconds of the bare contenders together / of this one: median over rounds."""
    efficiency_range: tuple[float, float]
    peak_rss_mib: float
    startup_cpu_s: float
    parts: dict[str, float]


def mirrored(names: Sequence[str]) -> list[str]:
    """A B C -> A B C C B A."""
    return [*names, *reversed(names)]


def compare(rounds: Sequence[Round], *, bare: Sequence[str]) -> list[Row]:
    """One row a contender; `bare` names those whose CPU-seconds together are the limit.

    Raises `UnsteadyMachine` (see the module's docstring) and ValueError if there is no round.
    """
    if not rounds:
        raise ValueError("no rounds to compare; at least 1 is needed")
    for number, runs in enumerate(rounds, start=1):
        for name in bare:
            _refuse_if_unsteady(name, runs[name], number=number)
    return [_row(name, rounds, bare=bare) for name in rounds[0]]


def bare_difference(runs: Sequence[Measurement]) -> float:
    """How far the dearest run lies above the cheapest, as a share of the cheapest."""
    costs = [run.cpu_s for run in runs]
    return max(costs) / min(costs) - 1


def _refuse_if_unsteady(name: str, runs: Sequence[Measurement], *, number: int) -> None:
    difference = bare_difference(runs)
    if difference > MAX_BARE_DIFFERENCE:
        costs = " and ".join(f"{run.cpu_s:.2f}" for run in runs)
        raise UnsteadyMachine(
            f"round {number}: the runs of {name} took {costs} CPU-s a step, {difference:.0%} apart "
            f"(allowed: {MAX_BARE_DIFFERENCE:.0%}). Run again on a quieter machine, or with more --steps."
        )


def _row(name: str, rounds: Sequence[Round], *, bare: Sequence[str]) -> Row:
    runs = [run for a_round in rounds for run in a_round[name]]
    efficiencies = [sum(_mean_cpu_s(a_round[one]) for one in bare) / _mean_cpu_s(a_round[name]) for a_round in rounds]
    cpu_s = statistics.median(run.cpu_s for run in runs)
    return Row(
        contender=name,
        cpu_s=cpu_s,
        generated_tokens_per_cpu_s=runs[0].generated_tokens / cpu_s,
        total_tokens_per_cpu_s=runs[0].total_tokens / cpu_s,
        efficiency=statistics.median(efficiencies),
        efficiency_range=(min(efficiencies), max(efficiencies)),
        peak_rss_mib=max(run.peak_rss_mib for run in runs),
        startup_cpu_s=statistics.median(run.startup_cpu_s for run in runs),
        parts={part: statistics.median(run.parts[part] for run in runs) for part in runs[0].parts},
    )


def _mean_cpu_s(runs: Sequence[Measurement]) -> float:
    return statistics.fmean(run.cpu_s for run in runs)


def format_table(rows: Sequence[Row], *, bare: Sequence[str]) -> str:
    """The rows as aligned plain text."""
    head = ("contender", "CPU-s/step", "gen tok/CPU-s", "all tok/CPU-s", "efficiency", "range", "MiB", "start CPU-s")
    lines = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    parts = [
        f"  {row.contender}: " + ", ".join(f"{name} {cpu_s:.2f}" for name, cpu_s in row.parts.items()) for row in rows
    ]
    return "\n".join(
        [*table, "parts, CPU-s:", *parts, f"efficiency = ({' + '.join(bare)}) / contender, CPU-s of a step"]
    )


def _cells(row: Row) -> tuple[str, ...]:
    low, high = row.efficiency_range
    return (
        row.contender,
        f"{row.cpu_s:.2f}",
        f"{row.generated_tokens_per_cpu_s:.1f}",
        f"{row.total_tokens_per_cpu_s:.1f}",
        f"{row.efficiency:.2f}",
        f"{low:.2f}-{high:.2f}",
        f"{row.peak_rss_mib:.0f}",
        f"{row.startup_cpu_s:.1f}",
    )
