"""The reward server: weighted sums, failures that stay failures, and answers while it is busy."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_cluster.errors import ConfigError, RoleError
from rlhf_cluster.records import Invalid, Prompt, RolloutGroup
from rlhf_cluster.rewards.sample import Failure
from rlhf_cluster.rewards.server import RewardServer, samples_of, with_rewards
from rlhf_cluster.rewards.settings import FunctionReward


@pytest.fixture(autouse=True)
def foreign_rewards_are_importable(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def group(*texts: str, invalid: tuple[Invalid, ...] = (), **item) -> RolloutGroup:
    lengths = np.arange(1, len(texts) + 1, dtype=np.int32)
    num_tokens = int(lengths.sum())
    return RolloutGroup(
        request_id=0,
        prompt=Prompt(prompt_id="0/0", text="the prompt", token_ids=np.array([7, 8], dtype=np.int32), item=item),
        worker_id="rollout-0",
        lengths=lengths,
        token_ids=np.arange(num_tokens, dtype=np.int32),
        logprobs=np.zeros(num_tokens, dtype=np.float32),
        versions=np.zeros(num_tokens, dtype=np.int32),
        finish_reasons=("stop",) * len(texts),
        texts=texts,
        invalid=invalid,
    )


def serve(rewards, use):
    async def run():
        server = RewardServer(rewards, worker_id="reward-7")
        try:
            return await use(server)
        finally:
            await server.close()

    return asyncio.run(run())


def by_completion(**fields) -> FunctionReward:
    return FunctionReward(function="foreign_rewards:by_completion", name="foreign", **fields)


def test_samples_are_the_completions_with_their_row():
    first, second = samples_of(group("a", "b", answer=4))
    assert (first.prompt, first.completion, first.finish_reason, first.num_tokens) == ("the prompt", "a", "stop", 1)
    assert second.column("answer") == 4
    assert second.token_ids.tolist() == [7, 8, 1, 2]


def test_rewards_are_the_weighted_sum_with_a_breakdown():
    rewards = [
        FunctionReward(function="number_match", weight=2.0),
        FunctionReward(function="length", args={"target": 2}, weight=-0.5),
        FunctionReward(function="regex", args={"pattern": "a.*"}, weight=0.0),
    ]
    (scored,) = serve(rewards, lambda server: server.score([group("a 4", "4", "5", answer=4)]))
    assert scored.breakdown["number_match"].tolist() == [1.0, 1.0, 0.0]
    assert scored.breakdown["length"].tolist() == [0.5, 1.0, 0.5]
    assert scored.breakdown["regex"].tolist() == [1.0, 0.0, 0.0]
    assert scored.rewards.tolist() == [1.75, 1.5, -0.25]
    assert scored.rewards.dtype == scored.breakdown["length"].dtype == np.float32
    assert scored.invalid == ()


def test_a_failure_is_never_a_reward():
    rewards = [by_completion(time_limit_s=1.0), FunctionReward(function="length", args={"target": 1})]
    (scored,) = serve(rewards, lambda server: server.score([group("1", "raise", "die", "2", "nan", "hang")]))
    assert np.isnan(scored.rewards).tolist() == [False, True, True, False, True, True]
    assert not np.isnan(scored.breakdown["length"]).any()
    assert [(failure.completion, failure.source, failure.kind) for failure in scored.invalid] == [
        (1, "reward:foreign", "raised"),
        (2, "reward:foreign", "died"),
        (4, "reward:foreign", "not_a_number"),
        (5, "reward:foreign", "timed_out"),
    ]
    assert scored.valid_only().rewards.tolist() == [2.0, 2.0]


def test_a_reward_that_is_only_watched_invalidates_nothing():
    rewards = [by_completion(weight=0.0), FunctionReward(function="length", args={"target": 1})]
    (scored,) = serve(rewards, lambda server: server.score([group("1", "raise")]))
    assert np.isnan(scored.breakdown["foreign"]).tolist() == [False, True]
    assert scored.rewards.tolist() == [1.0, 0.0]
    assert scored.invalid == ()


def test_what_was_invalid_before_stays_invalid():
    earlier = Invalid(completion=1, source="rollout", kind="unavailable", message="aborted")
    rewards = [FunctionReward(function="regex", args={"pattern": "."})]
    (scored,) = serve(rewards, lambda server: server.score([group("a", "b", invalid=(earlier,))]))
    assert scored.invalid == (earlier,)
    assert np.isnan(scored.rewards).tolist() == [False, True]


def test_status_is_answered_while_rewards_hang():
    async def use(server: RewardServer):
        before = await server.status()
        await server.start()
        scoring = asyncio.create_task(server.score([group("hang"), group("1", "2")]))
        await asyncio.sleep(0.1)
        busy = await server.status()
        return before, busy, await scoring, await server.status()

    before, busy, scored, after = serve([by_completion(time_limit_s=1.0)], use)
    assert (before.state, before.worker_id, before.role) == ("starting", "reward-7", "reward server")
    assert (busy.state, busy.num_in_flight, busy.activity) == ("busy", 2, "scoring 2 groups")
    assert (after.state, after.num_in_flight, after.tokens_total) == ("idle", 0, 4)
    assert after.busy_s > 0
    assert after.rss_bytes > 1 << 20
    assert [len(each.invalid) for each in scored] == [1, 0]


def test_a_server_that_cannot_load_a_reward_says_so_at_start_and_at_every_score():
    async def use(server: RewardServer):
        with pytest.raises(ConfigError, match="absent_package"):
            await server.start()
        with pytest.raises(ConfigError, match="absent_package"):
            await server.score([group("1")])

    serve([FunctionReward(function="absent_package:judge")], use)


def test_a_closed_server_refuses_and_closing_twice_is_fine():
    async def use(server: RewardServer):
        await server.score([group("a")])
        await server.close()
        await server.close()
        assert (await server.status()).state == "closed"
        with pytest.raises(RoleError, match="closed"):
            await server.score([group("a")])

    serve([FunctionReward(function="regex", args={"pattern": "a"})], use)


def test_rewards_that_clash_are_refused_before_anything_starts():
    with pytest.raises(ConfigError, match="called 'vader'"):
        RewardServer([FunctionReward(function="vader"), FunctionReward(function="vader")])


outcomes = st.one_of(st.floats(-1e3, 1e3, width=32), st.just(Failure(kind="raised", message="")))


@settings(deadline=None)
@given(st.lists(st.tuples(outcomes, outcomes), min_size=1, max_size=6), st.floats(-4, 4), st.floats(-4, 4))
def test_a_completion_has_a_reward_exactly_when_no_weighted_reward_failed(rows, weight_a, weight_b):
    weights = {"a": weight_a, "b": weight_b}
    columns = {"a": [row[0] for row in rows], "b": [row[1] for row in rows]}
    scored = with_rewards(group(*["x"] * len(rows)), columns, weights=weights)
    for i, row in enumerate(rows):
        weighted = [(value, weight) for value, weight in zip(row, weights.values(), strict=True) if weight]
        failed = any(isinstance(value, Failure) for value, _ in weighted)
        assert np.isnan(scored.rewards[i]) == failed
        assert failed == (i in {failure.completion for failure in scored.invalid})
        if not failed:
            expected = sum(value * weight for value, weight in weighted)
            assert scored.rewards[i] == pytest.approx(expected, rel=1e-5, abs=1e-3)
