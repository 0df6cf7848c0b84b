"""When failures of a reward are too many, and what the error says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_cluster.errors import TooManyInvalid
from rlhf_cluster.flow.invalid_rate import InvalidRate
from rlhf_cluster.records import Invalid, Prompt, RolloutGroup


def group(num_completions: int, *failing: int, name: str = "vader", kind: str = "raised") -> RolloutGroup:
    empty = np.zeros(0, dtype=np.int32)
    return RolloutGroup(
        request_id=0,
        prompt=Prompt(prompt_id="0/0", text="", token_ids=np.zeros(1, dtype=np.int32)),
        worker_id="",
        lengths=np.zeros(num_completions, dtype=np.int32),
        token_ids=empty,
        logprobs=empty.astype(np.float32),
        versions=empty,
        finish_reasons=("stop",) * num_completions,
        breakdown={name: np.zeros(num_completions, dtype=np.float32)},
        invalid=tuple(Invalid(completion=i, source=f"reward:{name}", kind=kind, message="why") for i in failing),
    )


def test_a_job_stops_at_the_first_failure_past_the_share_of_the_window():
    rate = InvalidRate(max_rate=0.25, window=8)
    rate.observe(group(4, 0, 1))
    rate.check()
    rate.observe(group(4, 3))
    with pytest.raises(TooManyInvalid, match=r"'vader' failed for 3 of the last 8 .* allows 2 of 8.* raised: why"):
        rate.check()


def test_failures_leave_with_the_window():
    rate = InvalidRate(max_rate=0.25, window=8)
    rate.observe(group(4, 0, 1))
    rate.observe(group(8))
    rate.observe(group(4, 0, 1))
    rate.check()
    assert rate.rates() == {"vader": 0.25}


def test_rewards_are_counted_apart_and_the_most_common_failure_is_told():
    rate = InvalidRate(max_rate=0.5, window=4)
    rate.observe(group(4, 0, 1, name="regex"))
    rate.observe(group(1, 0, name="judge", kind="died"))
    rate.observe(group(3, 0, 1, name="judge", kind="timed_out"))
    assert rate.rates() == {"regex": 0.5, "judge": 0.75}
    with pytest.raises(TooManyInvalid, match=r"'judge' failed for 3 .*\(2 times\) timed_out"):
        rate.check()


def test_a_rate_of_zero_stops_at_the_first_failure_and_one_never_does():
    strict, lenient = InvalidRate(max_rate=0.0, window=100), InvalidRate(max_rate=1.0, window=2)
    for rate in (strict, lenient):
        rate.check()
        rate.observe(group(2, 0, 1))
    lenient.check()
    with pytest.raises(TooManyInvalid):
        strict.check()


def test_binary_rounding_takes_nothing_from_the_bound():
    rate = InvalidRate(max_rate=0.29, window=100)
    rate.observe(group(100, *range(29)))
    rate.check()


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=60), st.integers(1, 20), st.floats(0, 1))
def test_the_window_is_the_last_results(results, window, max_rate):
    rate = InvalidRate(max_rate=max_rate, window=window)
    for failed in results:
        rate.observe(group(1, *([0] if failed else [])))
    recent = results[-window:]
    assert rate.rates() == ({"vader": sum(recent) / len(recent)} if recent else {})
    if sum(recent) > max_rate * window + 1e-6:
        with pytest.raises(TooManyInvalid):
            rate.check()
    elif sum(recent) < max_rate * window - 1e-6:
        rate.check()
