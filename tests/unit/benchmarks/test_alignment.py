"""Speeds beside TRL are told only of contenders that train on the same thing."""

from __future__ import annotations

import pytest
from alignment import COMPARISONS, UnequalLosses, format_rows, loss_differences, refuse_unequal
from measure import Measurement, StepCost
from protocol import compare


def measurement(contender: str, cpu_s: float, *, losses: list[float], peak_mib: float | None = 1.0) -> Measurement:
    return Measurement(
        contender=contender,
        workload="sft",
        steps=[StepCost(cpu_s=cpu_s, wall_s=cpu_s, parts={})],
        startup_cpu_s=1.0,
        peak_rss_mib=2.0,
        generated_tokens=50,
        total_tokens=100,
        notes={"losses": losses, "peak_over_model_mib": peak_mib},
    )


def runs_of(losses: list[float]) -> dict[str, list[Measurement]]:
    return {
        "trl_sft": [measurement("trl_sft", 20.0, losses=[2.0, 1.5], peak_mib=4000)],
        "ours_sft": [measurement("ours_sft", 10.0, losses=losses, peak_mib=1000)],
    }


def test_a_first_loss_that_is_not_the_peers_is_refused() -> None:
    differences = loss_differences(runs_of([2.001, 1.5]), COMPARISONS["sft"])
    with pytest.raises(UnequalLosses, match=r"the loss of ours_sft on the first step is 0\.001 from that of trl_sft"):
        refuse_unequal(differences, peer="trl_sft")


def test_a_later_loss_is_told_and_not_refused() -> None:
    differences = loss_differences(runs_of([2.0, 1.501]), COMPARISONS["sft"])
    refuse_unequal(differences, peer="trl_sft")
    assert differences["ours_sft"] == pytest.approx([0.0, 0.001])


def test_the_table_tells_speed_peak_and_losses() -> None:
    runs = runs_of([2.0, 1.5])
    table = format_rows(compare([runs], bare=["trl_sft"]), runs, loss_differences(runs, COMPARISONS["sft"]))
    peer, ours = table.splitlines()[1:]
    assert peer.split()[:5] == ["trl_sft", "20.00", "5.0", "1.00", "1.00-1.00"]
    assert ours.split()[:6] == ["ours_sft", "10.00", "10.0", "2.00", "2.00-2.00", "1000"]


def test_every_comparison_is_of_one_task() -> None:
    for name, comparison in COMPARISONS.items():
        assert name.startswith(comparison.task)
        assert all(each.split("_")[1] == comparison.task for each in comparison.names)
