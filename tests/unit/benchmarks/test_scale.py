"""The tables of the driver's scale, on fleets of a few workers and mostly in virtual time."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from scale import Plan, as_text, makespans, speed_ups
from simulated_fleet import COMPLETIONS, TOKENS, Case, bare_cpu_s, run_real, run_virtual

SMALL = Case(num_workers=4, slots=2, prompts_per_step=8, num_steps=8, max_staleness=2, mean_s=1.0)


@pytest.mark.parametrize("max_staleness", [0, 1, 2])
def test_in_virtual_time_the_driver_needs_no_longer_than_is_possible(max_staleness):
    case = replace(SMALL, max_staleness=max_staleness)
    found = run_virtual(case)
    assert found.makespan_s == pytest.approx(case.ideal_s())
    assert found.audit.ok
    assert max(found.audit.staleness) <= max_staleness


@pytest.mark.parametrize("max_staleness", [0, 2])
def test_a_learner_that_is_slower_than_the_workers_never_leaves_them_a_free_slot(max_staleness):
    """Many groups fit into the time of one update, so slots fall free while it lasts."""
    case = replace(SMALL, prompts_per_step=24, max_staleness=max_staleness)
    assert run_virtual(case).makespan_s == pytest.approx(case.ideal_s())


def test_no_token_is_thrown_away_by_updates_in_the_middle_of_groups():
    found = run_virtual(SMALL)
    assert found.num_updates == 8
    assert found.num_generated == found.audit.num_tokens == SMALL.num_completions * TOKENS
    assert found.num_thrown_away == 0


@pytest.mark.parametrize("spares", [0, 1])
def test_a_killed_worker_costs_time_and_its_unfinished_tokens_and_no_prompt(spares):
    case = replace(SMALL, spares=spares, kill_at_s=0.4 * SMALL.ideal_s())
    found = run_virtual(case)
    assert case.ideal_s() == SMALL.ideal_s()
    assert found.makespan_s >= SMALL.ideal_s()
    assert found.audit.ok
    assert 0 < found.audit.num_lost <= 2
    assert 0 < found.num_thrown_away < 2 * COMPLETIONS * TOKENS


def test_generation_and_training_are_balanced():
    generated_s = math.fsum(SMALL.durations_s) / SMALL.num_steps
    assert SMALL.train_s == pytest.approx(generated_s / 8)


def test_in_real_time_a_case_ends_and_costs_cpu():
    case = replace(SMALL, mean_s=0.01, num_steps=2)
    found = run_real(case)
    assert found.makespan_s >= case.ideal_s() > 0
    assert found.cpu_s > bare_cpu_s(case) > 0
    assert found.audit.ok


def test_every_table_has_a_row_for_each_fleet():
    plan = Plan(fleets=(2, 3), mean_s=0.002, num_steps=2)
    assert [row["workers"] for row in makespans(plan)] == [2, 2, 3, 3]
    assert [row["audit"] for row in makespans(plan)] == ["clean"] * 4
    assert [row["thrown away a step"] for row in makespans(plan)] == [0.0] * 4
    assert [row["within bound"] for row in speed_ups(plan)] == ["2 of 2 batches"] * 2


def test_a_table_lines_up():
    assert as_text([{"a": 1, "name": "x"}, {"a": 22, "name": "y"}]) == " a  name\n 1     x\n22     y"
