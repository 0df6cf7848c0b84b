"""How benchmark runs are ordered, compared and refused."""

from __future__ import annotations

import pytest
from measure import Measurement, StepCost
from protocol import UnsteadyMachine, compare, format_table, mirrored


def measurement(contender: str, *costs: float) -> Measurement:
    steps = [StepCost(cpu_s=cost, wall_s=cost, parts={"gen": cost / 2}) for cost in costs]
    return Measurement(
        contender=contender,
        workload="lite",
        steps=steps,
        startup_cpu_s=10.0,
        peak_rss_mib=1000.0,
        generated_tokens=100,
        total_tokens=200,
    )


def a_round(**costs: tuple[float, float]) -> dict[str, list[Measurement]]:
    return {name: [measurement(name, cost) for cost in pair] for name, pair in costs.items()}


def test_a_round_runs_every_contender_twice_and_mirrored() -> None:
    assert mirrored(["a", "b", "c"]) == ["a", "b", "c", "c", "b", "a"]


def test_efficiency_is_the_sum_of_the_bare_costs_over_the_contenders_cost() -> None:
    rows = compare([a_round(gen=(2.0, 2.0), train=(3.0, 3.0), peer=(10.0, 10.0))], bare=["gen", "train"])
    assert {row.contender: row.efficiency for row in rows} == pytest.approx({"gen": 2.5, "train": 5 / 3, "peer": 0.5})


def test_a_drift_between_rounds_cancels_because_ratios_are_taken_inside_a_round() -> None:
    rounds = [a_round(bare=(1.0, 1.0), peer=(2.0, 2.0)), a_round(bare=(1.8, 1.8), peer=(3.6, 3.6))]
    peer = compare(rounds, bare=["bare"])[1]
    assert peer.efficiency == pytest.approx(0.5)
    assert peer.efficiency_range == pytest.approx((0.5, 0.5))


def test_bare_runs_more_than_fifteen_percent_apart_are_refused_with_both_figures() -> None:
    with pytest.raises(
        UnsteadyMachine, match=r"round 1: the runs of bare took 2\.00 and 2\.40 CPU-s a step, 20% apart"
    ):
        compare([a_round(bare=(2.0, 2.4), peer=(4.0, 4.0))], bare=["bare"])


def test_an_uneven_contender_that_is_not_bare_is_reported() -> None:
    rows = compare([a_round(bare=(2.0, 2.2), peer=(4.0, 8.0))], bare=["bare"])
    assert rows[1].cpu_s == pytest.approx(6.0)


def test_the_table_has_a_line_and_a_parts_line_for_every_contender() -> None:
    rows = compare([a_round(bare=(2.0, 2.0), peer=(4.0, 4.0))], bare=["bare"])
    table = format_table(rows, bare=["bare"])
    assert [line.split()[0] for line in table.splitlines()[1:3]] == ["bare", "peer"]
    assert "  peer: gen 2.00" in table


def test_a_measurement_survives_its_json_line() -> None:
    one = measurement("bare", 1.0, 3.0, 2.0)
    assert Measurement.from_json(one.to_json()) == one
    assert one.cpu_s == 2.0
    assert "\n" not in one.to_json()
