"""What the algorithms of pairs share: two completions of one prompt, of which one is preferred.

A recorded pair is a group whose rewards say which; of a generated group the best and the worst are kept. `credit`
passes that on as the sign of every token, +1 preferred, -1 rejected, 0 in a tie, and `PairColumns` puts the two side by
side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import numpy as np

from rlhf_cluster.algorithms.base import Algorithm, TokenColumns
from rlhf_cluster.functional import preference, segments
from rlhf_cluster.records import RolloutGroup

if TYPE_CHECKING:
    import torch


class PairAlgorithm(Algorithm):
    """Base: which groups make a pair, what `loss` is told of it, and one loss a pair, averaged over pairs."""

    min_completions: ClassVar[int] = 2
    by_group: ClassVar[bool] = True
    learns_from: ClassVar[tuple[Literal["rollouts", "data"], ...]] = ("data", "rollouts")
    whole_groups: ClassVar[bool] = True

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"reward"})

    @property
    def teaches_ties(self) -> bool:
        return False

    def drop_reason(self, group: RolloutGroup) -> str | None:
        """`too_few_valid`, `zero_variance` (a tie), or `no_tokens` where one of the two has nothing to train on."""
        if group.num_completions < 2:
            return "too_few_valid"
        if not self.teaches_ties and np.ptp(preference_of(group)) == 0:
            return "zero_variance"
        return None if _best_and_worst(group).trained_lengths.all() else "no_tokens"

    def credit(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        """Groups of exactly two, in the order they had."""
        pairs = [_best_and_worst(group) for group in groups]
        return tuple(replace(pair, advantages=pair.per_token(_signs(pair))) for pair in pairs)

    def normaliser(self, groups: Sequence[RolloutGroup]) -> float:
        return float(max(len(groups), 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class PairColumns:
    """Which completion of a microbatch is the preferred one of its pair: S = 2 G completions."""

    columns: TokenColumns
    group_S: torch.Tensor
    """int64."""
    is_chosen_S: torch.Tensor
    """bool; in a tie the first."""
    tied_G: torch.Tensor
    """bool."""

    @classmethod
    def of(cls, columns: TokenColumns) -> Self:
        group_S = groups_of(columns)
        sign_S = segments.first(columns.advantages_N, columns.sequence_N, columns.num_sequences)
        is_chosen_S = (sign_S > 0) | ((sign_S == 0) & segments.starts(group_S))
        tied_G = segments.sums(sign_S.abs(), group_S, columns.num_groups) == 0
        return cls(columns=columns, group_S=group_S, is_chosen_S=is_chosen_S, tied_G=tied_G)

    def totals(self, values_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A token column summed over the chosen and over the rejected completion of each pair: float [G] and [G]."""
        return self._divide(segments.sums(values_N, self.columns.sequence_N, self.columns.num_sequences))

    def means(self, values_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same, averaged over the tokens of each completion."""
        return self._divide(segments.means(values_N, self.columns.sequence_N, self.columns.num_sequences))

    def figures(self, chosen_G: torch.Tensor, rejected_G: torch.Tensor) -> dict[str, torch.Tensor]:
        """What every algorithm of pairs reports, given its implicit rewards: `accuracy` (1/2 in a tie), `margin`,
        `chosen_reward`, `rejected_reward`, and `chosen_logprob` and `rejected_logprob`, summed over tokens."""
        chosen_logprob_G, rejected_logprob_G = self.totals(self.columns.logprobs_N.detach())
        return {
            "accuracy": preference.accuracy(chosen_G, rejected_G).where(~self.tied_G, 0.5),
            "margin": (chosen_G - rejected_G).detach(),
            "chosen_reward": chosen_G.detach(),
            "rejected_reward": rejected_G.detach(),
            "chosen_logprob": chosen_logprob_G,
            "rejected_logprob": rejected_logprob_G,
        }

    def _divide(self, values_S: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        chosen_G = segments.sums(values_S.where(self.is_chosen_S, 0), self.group_S, self.columns.num_groups)
        rejected_G = segments.sums(values_S.where(~self.is_chosen_S, 0), self.group_S, self.columns.num_groups)
        return chosen_G, rejected_G


def preference_of(group: RolloutGroup) -> np.ndarray:
    """The rewards of a group, float32 [G], each a number."""
    if group.rewards is None or not np.isfinite(group.rewards).all():
        raise AssertionError(
            f"request {group.request_id}: rewards {group.rewards}, expected a number for each completion"
        )
    return group.rewards


def groups_of(columns: TokenColumns) -> torch.Tensor:
    """int64 [S]."""
    if columns.group_S is None:
        raise AssertionError("a loss of whole groups got columns without group_S")
    return columns.group_S


def reference_of(columns: TokenColumns) -> torch.Tensor:
    """float32 [N]."""
    if columns.reference_logprobs_N is None:
        raise AssertionError("a loss that is measured from the reference got columns without reference_logprobs_N")
    return columns.reference_logprobs_N


def _best_and_worst(group: RolloutGroup) -> RolloutGroup:
    """Two different completions even where all are equal."""
    if group.num_completions == 2:
        return group
    order = np.argsort(preference_of(group), kind="stable")
    keep_G = np.zeros(group.num_completions, dtype=bool)
    keep_G[[order[0], order[-1]]] = True
    return group.select(keep_G)


def _signs(pair: RolloutGroup) -> np.ndarray:
    first, second = preference_of(pair)
    sign = np.sign(first - second)
    return np.array([sign, -sign], dtype=np.float32)
