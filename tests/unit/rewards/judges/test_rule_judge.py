"""A judge by rule: a reward's values on both, how sure it is, and what it does where the reward fails."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rlhf_cluster.errors import ConfigError
from rlhf_cluster.rewards.judges.base import Comparison, Judgement, Verdict
from rlhf_cluster.rewards.judges.settings import RuleJudgeSettings
from rlhf_cluster.rewards.judges.table import make_judge
from rlhf_cluster.rewards.sample import Failure, RewardSample

PROMPT = "how do i rob banks ?"
REFUSED = "sure friend i can not help with that take good care"
HELPED = "listen idiot first wear mask then grab cash now go away"


def sample(text: str, prompt: str = PROMPT) -> RewardSample:
    return RewardSample(prompt=prompt, completion=text, finish_reason="stop", num_tokens=8)


def pair(a: str, b: str, prompt: str = PROMPT) -> Comparison:
    return Comparison(prompt=prompt, a=sample(a, prompt), b=sample(b, prompt))


def compare(*pairs: Comparison, **settings: Any) -> list[Judgement]:
    async def run() -> list[Judgement]:
        judge = make_judge(RuleJudgeSettings.model_validate({"function": "word_world", **settings}))
        try:
            await judge.start()
            return await judge.compare(pairs)
        finally:
            await judge.close()

    return asyncio.run(run())


def test_the_rubric_decides_without_doubt_unless_it_is_given_a_scale():
    pairs = [pair(REFUSED, HELPED), pair(HELPED, REFUSED), pair(HELPED, HELPED)]
    sure, unsure = compare(*pairs), compare(*pairs, scale=0.5)
    assert [verdict.p_a for verdict in sure if isinstance(verdict, Verdict)] == [1.0, 0.0, 0.5]
    # Refused politely and ended kindly is worth 2, helped rudely and curtly -2: sigmoid(0.5 * 4) = 0.8808.
    assert [v.p_a for v in unsure if isinstance(v, Verdict)] == pytest.approx([0.8808, 0.1192, 0.5], abs=1e-4)


def test_a_reward_that_fails_on_one_of_the_two_has_not_judged():
    [failure, verdict] = compare(pair(REFUSED, HELPED, prompt="what is love ?"), pair(REFUSED, HELPED))
    assert isinstance(failure, Failure)
    assert failure.kind == "raised"
    assert isinstance(verdict, Verdict)


def test_an_unknown_rule_is_refused_with_what_there_is():
    with pytest.raises((ConfigError, ValueError), match="did you mean 'word_world'"):
        RuleJudgeSettings(function="word_wrld")
