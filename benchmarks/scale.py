"""How close the driver comes to the best possible schedule, and what it costs: 16 to 1,000 simulated workers.

Everything is real but the roles, which only wait; see `simulated_fleet.py`. Groups are 8 completions of 32 tokens,
their seconds lognormal with sigma 1.0, and generation and training are balanced. Each case runs in real time and once
more in virtual time, in which the driver's work takes no time: what is lost there is lost by a decision.

    python benchmarks/scale.py              # six minutes
    python benchmarks/scale.py --quick      # two, up to 256 workers
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from simulated_fleet import Case, Outcome, bare_cpu_s, run_real, run_virtual

RESULTS = Path(__file__).parent / "results"
ASYNC = 2
"""The bound on staleness of the asynchronous jobs."""
GROUPS = 1_000
"""Groups a step of the job whose CPU is compared between fleets, all under way at once."""
KILLED_MEAN_S = 0.3
"""Of a group, in the job of which a worker is killed."""
KILL_SHARES = [0.15 + 0.05 * number for number in range(13)]
"""When a worker is killed in the virtual runs, in shares of the ideal makespan."""

measured = cache(run_real)
in_virtual_time = cache(run_virtual)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long a run of the tables takes."""

    fleets: tuple[int, ...]
    mean_s: float
    """Of a group."""
    num_steps: int

    def weak(self, num_workers: int, max_staleness: int) -> Case:
        """As many groups a step as workers."""
        return Case(
            num_workers=num_workers,
            slots=1,
            prompts_per_step=num_workers,
            num_steps=self.num_steps,
            max_staleness=max_staleness,
            mean_s=self.mean_s,
        )

    def fixed(self, num_workers: int) -> Case:
        """The same job on any fleet."""
        slots = -(-GROUPS // num_workers)
        return replace(self.weak(num_workers, ASYNC), slots=slots, prompts_per_step=GROUPS)

    def killed(self, max_staleness: int, *, spares: int) -> Case:
        """One of 8 workers is lost in the middle; what it had begun begins anew."""
        case = Case(
            num_workers=8,
            slots=4,
            prompts_per_step=32,
            num_steps=4 * self.num_steps,
            max_staleness=max_staleness,
            mean_s=KILLED_MEAN_S,
            spares=spares,
        )
        return replace(case, kill_at_s=0.4 * case.ideal_s())


FULL = Plan(fleets=(16, 64, 256, 1000), mean_s=0.7, num_steps=6)
QUICK = Plan(fleets=(16, 64, 256), mean_s=0.3, num_steps=6)


def makespans(plan: Plan) -> list[dict[str, object]]:
    """Ideal over achieved; the process's share of a CPU says whether it had time enough."""
    return [
        {
            "workers": case.num_workers,
            "job": _name(case),
            "ideal s": round(case.ideal_s(), 2),
            "achieved s": round((found := measured(case)).makespan_s, 2),
            "ideal/achieved": round(case.ideal_s() / found.makespan_s, 3),
            "virtual": round(case.ideal_s() / in_virtual_time(case).makespan_s, 3),
            "CPU share": round(found.cpu_s / found.makespan_s, 2),
            "thrown away a step": found.num_thrown_away / found.num_updates,
            "audit": _verdict(found),
        }
        for num_workers in plan.fleets
        for case in (plan.weak(num_workers, 0), plan.weak(num_workers, ASYNC))
    ]


def speed_ups(plan: Plan) -> list[dict[str, object]]:
    """Asynchronous over synchronous, as much work in both; staleness as the ledger proves it."""
    rows = []
    for num_workers in plan.fleets:
        sync, free = plan.weak(num_workers, 0), plan.weak(num_workers, ASYNC)
        found = measured(free)
        rows.append(
            {
                "workers": num_workers,
                "speed-up": round(measured(sync).makespan_s / found.makespan_s, 2),
                "possible": round(sync.ideal_s() / free.ideal_s(), 2),
                "max staleness": max(found.audit.staleness),
                "within bound": f"{sum(n for age, n in found.audit.staleness.items() if age <= ASYNC)} of "
                f"{found.audit.num_steps} batches",
            }
        )
    return rows


def costs(plan: Plan) -> list[dict[str, object]]:
    """CPU-microseconds a completion. `own` is what the simulated workers alone cost, in a run without a driver."""
    rows = []
    for job, make in (("1 group a worker", lambda n: plan.weak(n, ASYNC)), (f"{GROUPS} groups", plan.fixed)):
        for num_workers in plan.fleets:
            case = make(num_workers)
            whole, own = (1e6 * s / case.num_completions for s in (measured(case).cpu_s, bare_cpu_s(case)))
            rows.append(
                {
                    "a step": job,
                    "workers": num_workers,
                    "completions": case.num_completions,
                    "all us": round(whole, 1),
                    "own us": round(own, 1),
                    "driver us": round(whole - own, 1),
                    "CPU share": round(measured(case).cpu_s / measured(case).makespan_s, 2),
                }
            )
    return rows


def kills(plan: Plan) -> list[dict[str, object]]:
    """Against the ideal of a fleet that loses nobody. The virtual columns are over many times of the kill."""
    rows = []
    for max_staleness, spares in ((0, 0), (ASYNC, 0), (ASYNC, 1)):
        case = plan.killed(max_staleness, spares=spares)
        ideal_s, found = case.ideal_s(), measured(case)
        ratios = [
            in_virtual_time(replace(case, kill_at_s=share * ideal_s)).makespan_s / ideal_s for share in KILL_SHARES
        ]
        rows.append(
            {
                "job": _name(case),
                "spares": spares,
                "ideal s": round(ideal_s, 2),
                "achieved s": round(found.makespan_s, 2),
                "longest group s": round(max(case.durations_s), 2),
                "achieved/ideal": round(found.makespan_s / ideal_s, 3),
                "virtual mean": round(statistics.fmean(ratios), 3),
                "virtual worst": round(max(ratios), 3),
                "sent again": found.audit.num_lost,
                "tokens thrown away": found.num_thrown_away,
                "of": found.num_generated,
                "audit": _verdict(found),
            }
        )
    return rows


TABLES: dict[str, Callable[[Plan], list[dict[str, object]]]] = {
    "ideal and achieved makespan": makespans,
    "asynchronous against synchronous": speed_ups,
    "CPU of a completion": costs,
    "one of 8 workers killed in the middle": kills,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter groups, no fleet of 1,000")
    plan = QUICK if parser.parse_args().quick else FULL
    tables: dict[str, object] = {"plan": repr(plan)}
    for title, make in TABLES.items():
        rows = make(plan)
        tables[title] = {"load": os.getloadavg(), "rows": rows}
        print(f"\n{title} (load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs)", flush=True)
        print(as_text(rows), flush=True)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"scale-{time.strftime('%Y%m%dT%H%M%S')}.json"
    path.write_text(json.dumps(tables, indent=1))
    print(f"\n{path}")


def as_text(rows: list[dict[str, object]]) -> str:
    """Columns as wide as what is in them."""
    lines = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in lines)


def _name(case: Case) -> str:
    return f"async {case.max_staleness}" if case.max_staleness else "sync"


def _verdict(found: Outcome) -> str:
    wrong = [check.name for check in found.audit.checks if not check.ok]
    return f"not so: {wrong[0]}" if wrong else "clean"


if __name__ == "__main__":
    main()
