"""The scripted engine's latency model, on a clock that only moves when somebody sleeps."""

from __future__ import annotations

import numpy as np
import pytest

from rlhf_cluster.records import Prompt, RolloutRequest, Sampling
from rlhf_cluster.rollout.engines.scripted import ScriptedEngine


class StillClock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def request_of(request_id: int, *, max_new_tokens: int = 10, ignore_eos: bool = True) -> RolloutRequest:
    return RolloutRequest(
        request_id=request_id,
        prompt=Prompt(prompt_id="0/0", text="", token_ids=np.zeros(4, dtype=np.int32)),
        num_completions=4,
        sampling=Sampling(max_new_tokens=max_new_tokens, ignore_eos=ignore_eos),
        seed=request_id,
    )


def finish(engine) -> list:
    groups = []
    while engine.num_in_flight():
        groups += engine.step()
    return groups


def test_groups_of_equal_speed_take_the_time_of_their_longest_completion():
    clock = StillClock()
    engine = ScriptedEngine(token_s=0.5).open(clock=clock)
    engine.submit(request_of(0, max_new_tokens=4))
    engine.submit(request_of(1, max_new_tokens=10))
    assert [group.request_id for group in finish(engine)] == [0, 1]
    assert clock.now == pytest.approx(105.0)


def test_a_request_that_comes_later_is_due_later():
    clock = StillClock()
    engine = ScriptedEngine(token_s=1.0).open(clock=clock)
    engine.submit(request_of(0, max_new_tokens=3))
    engine.step()
    engine.submit(request_of(1, max_new_tokens=3))
    finish(engine)
    assert clock.now == pytest.approx(104.0)


def test_spread_makes_some_groups_slower_and_keeps_the_median():
    times = []
    for seed in range(200):
        clock = StillClock()
        engine = ScriptedEngine(token_s=1.0, spread=0.5).open(clock=clock)
        engine.submit(request_of(seed, max_new_tokens=1))
        finish(engine)
        times.append(clock.now - 100)
    assert np.median(times) == pytest.approx(1.0, rel=0.15)
    assert np.std(np.log(times)) == pytest.approx(0.5, rel=0.15)


def test_completions_end_with_the_chance_that_was_set():
    engine = ScriptedEngine(eos_probability=0.1).open()
    for request_id in range(100):
        engine.submit(request_of(request_id, max_new_tokens=1000, ignore_eos=False))
    lengths = np.concatenate([group.lengths for group in finish(engine)])
    assert lengths.mean() == pytest.approx(10, rel=0.15)


def test_answers_do_not_depend_on_the_company():
    alone = ScriptedEngine().open()
    alone.submit(request_of(7, ignore_eos=False))
    crowd = ScriptedEngine().open()
    for request_id in range(10):
        crowd.submit(request_of(request_id, ignore_eos=False))
    in_crowd = next(group for group in finish(crowd) if group.request_id == 7)
    np.testing.assert_array_equal(finish(alone)[0].token_ids, in_crowd.token_ids)
