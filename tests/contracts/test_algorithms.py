"""What driver and learner rely on, of every algorithm in the table and of its main variants; and that the suite, which
outsiders run on their own, tells what breaks it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from pydantic import ConfigDict

from rlhf_cluster.algorithms import ALGORITHMS, CISPO, GRPO, GSPO, PPO, RLOO, ReinforcePP, TokenColumns, TokenLoss
from rlhf_cluster.records import RolloutGroup
from rlhf_cluster.testing.algorithm_contract import CHECKS, check_algorithm

VARIANTS = {
    **{name: kind() for name, kind in ALGORITHMS.items()},
    "grpo with a KL and an entropy": GRPO(kl_coef=0.1, entropy_coef=0.01, dual_clip=3.0, num_epochs=2),
    "grpo by sequence": GRPO(aggregation="sequence", importance="sequence", scale_rewards="none"),
    "grpo masked": GRPO(importance="masked", overlong_length=6, overlong_cache=3),
    "grpo with the KL in the reward": GRPO(kl_coef=0.1, kl_in="reward", kl_estimator="k1", importance="none"),
    "gspo by token": GSPO(gradient="token", importance="geometric"),
    "cispo by sequence": CISPO(aggregation="sequence"),
    "reinforce_pp with siblings": ReinforcePP(baseline="group", kl_coef=0.1),
    "ppo with everything": PPO(
        kl_target=3.0, whiten_rewards=True, reward_clip=1.0, entropy_coef=0.01, dual_clip=3.0, num_minibatches=2
    ),
    "ppo with nothing": PPO(kl_coef=0.0, value_clip=None, whiten_advantages=False, importance="none"),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("algorithm", VARIANTS.values(), ids=VARIANTS)
def test_an_algorithm(algorithm, check):
    check(algorithm)


class Unknown(RLOO):
    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"reward", "applause"})


class CarryingOver(RLOO):
    def credit(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        for group in groups:
            assert group.rewards is not None
            group.rewards[:] = 0
        return super().credit(groups)


class Batchwise(RLOO):
    def credit(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        of_all = np.float32(len(groups))
        return tuple(replace(group, advantages=group.advantages * of_all) for group in super().credit(groups))


class DividingByTheMicrobatch(RLOO):
    def loss(self, columns: TokenColumns) -> TokenLoss:
        loss_N = -columns.advantages_N * columns.logprobs_N
        return TokenLoss(loss_N=loss_N / len(loss_N), metrics={})


class WithAGradientInItsFigures(RLOO):
    def loss(self, columns: TokenColumns) -> TokenLoss:
        return TokenLoss(loss_N=-columns.advantages_N * columns.logprobs_N, metrics={"p": columns.logprobs_N.exp()})


class Remembering(RLOO):
    seen: ClassVar[list[int]] = []

    def credit(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        self.seen.append(len(groups))
        grown = np.float32(len(self.seen))
        return tuple(replace(group, advantages=group.advantages * grown) for group in super().credit(groups))


class Thawed(RLOO):
    model_config = ConfigDict(frozen=False)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Unknown, r"needs \['applause'\]"),
        (CarryingOver, "credit changed rewards"),
        (Batchwise, "Mismatched elements"),
        (DividingByTheMicrobatch, "not close"),
        (WithAGradientInItsFigures, "metric p has a gradient"),
        (Remembering, "two advantages of one group"),
        (Thawed, "can be set"),
    ],
)
def test_one_that_breaks_the_contract_is_told_how(kind, words):
    with pytest.raises(AssertionError, match=words) as caught:
        check_algorithm(kind())
    assert kind.__name__ in caught.value.__notes__[-1]
