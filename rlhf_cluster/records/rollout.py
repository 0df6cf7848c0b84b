"""A rollout group: the completions of one prompt, as columns that later roles fill in.

Completions lie one after another in flat token columns of length N = sum(lengths); per-completion columns have
length G. A few arrays a group travel cheaply between processes and pack without copying lists.

What was recorded instead of generated is a group too: a demonstration is one of a single completion, a preference pair
one of two whose rewards say which was preferred. No policy sampled its tokens, so it has no versions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate

import numpy as np

from rlhf_cluster.records.prompt import Prompt

UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How completions are drawn. `top_k` 0 and `top_p` 1.0 mean the whole vocabulary."""

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    ignore_eos: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRequest:
    """Asks for the completions of one prompt."""

    request_id: int
    """Dispatch order within the job, from 0; younger prompts never overtake older ones into a batch."""
    prompt: Prompt
    num_completions: int
    sampling: Sampling
    seed: int
    """Seeds this request alone, so what is drawn does not depend on which worker draws it."""
    begun: RolloutGroup | None = None
    """What another worker generated before it was drained: its tokens are kept, its `unfinished` completions go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invalid:
    """Why one completion has no reward. Never a number: a failure is not a low reward."""

    completion: int
    """Index within the group."""
    source: str
    """What failed, such as `reward:vader`."""
    kind: str
    """`raised`, `timed_out`, `died`, `not_a_number` or `unavailable`."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutGroup:
    """The completions of one prompt, with whatever has been found out about them so far."""

    request_id: int
    prompt: Prompt
    worker_id: str
    lengths: np.ndarray
    """int32 [G], tokens in each completion, the end-of-sequence token included."""
    token_ids: np.ndarray
    """int32 [N]."""
    logprobs: np.ndarray
    """float32 [N], under the policy that sampled each token (temperature applied): the behaviour log-probabilities;
    zeros where the completions were recorded."""
    versions: np.ndarray
    """int32 [N], the weight version that sampled each token; int32 [0] where the completions were recorded."""
    finish_reasons: tuple[str, ...]
    """[G] of `stop`, `length`, or `unfinished` where a drained worker handed the completion over as far as it got."""
    texts: tuple[str, ...] = ()
    """[G], decoded for rewards and people; empty until the driver decodes them."""
    rewards: np.ndarray | None = None
    """float32 [G], the weighted sum; NaN where invalid."""
    breakdown: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Per reward name, float32 [G] before weighting; NaN where invalid."""
    invalid: tuple[Invalid, ...] = ()
    reference_logprobs: np.ndarray | None = None
    """float32 [N], under the frozen reference policy."""
    loss_mask: np.ndarray | None = None
    """bool [N], the tokens that are trained on; None for all. A chat of several turns has others between."""
    values: np.ndarray | None = None
    """float32 [N], what the critic expects at the state each token was chosen in: the return still to come."""
    returns: np.ndarray | None = None
    """float32 [N], what the critic is trained towards; filled by the `credit` of an algorithm with a critic."""
    advantages: np.ndarray | None = None
    """float32 [N], filled by the algorithm's `credit`."""

    @property
    def num_completions(self) -> int:
        return len(self.lengths)

    @property
    def is_finished(self) -> bool:
        """False for a group that a drained worker handed over; it goes on as `RolloutRequest.begun`."""
        return UNFINISHED not in self.finish_reasons

    @property
    def num_tokens(self) -> int:
        """Completion tokens, the prompt not counted."""
        return len(self.token_ids)

    @property
    def trained_lengths(self) -> np.ndarray:
        """int [G], the tokens of each completion that are trained on."""
        if self.loss_mask is None:
            return self.lengths
        completion_N = self.per_token(np.arange(self.num_completions))
        return np.bincount(completion_N[self.loss_mask], minlength=self.num_completions)

    @property
    def num_trained_tokens(self) -> int:
        return self.num_tokens if self.loss_mask is None else int(self.loss_mask.sum())

    def trained(self, values_N: np.ndarray) -> np.ndarray:
        """A token column without the tokens that are not trained on."""
        return values_N if self.loss_mask is None else values_N[self.loss_mask]

    @property
    def oldest_version(self) -> int:
        """Staleness is counted from here. A group without tokens, or that nobody sampled, has no age: -1."""
        return int(self.versions.min()) if len(self.versions) else -1

    def completions(self) -> list[np.ndarray]:
        """Views of each completion's token ids, G arrays."""
        # Done for every group of a job, and several times as fast as `np.split`.
        lengths = self.lengths.tolist()
        return [self.token_ids[end - length : end] for length, end in zip(lengths, accumulate(lengths), strict=True)]

    def per_token(self, values_G: np.ndarray) -> np.ndarray:
        """Repeat one value a completion over its tokens: [G] -> [N]."""
        return np.repeat(values_G, self.lengths)

    def valid_only(self) -> RolloutGroup:
        """The group without its invalid completions; baselines and losses never see those."""
        if not self.invalid:
            return self
        keep_G = np.ones(self.num_completions, dtype=bool)
        keep_G[[failure.completion for failure in self.invalid]] = False
        return self.select(keep_G)

    def select(self, keep_G: np.ndarray) -> RolloutGroup:
        """The group with only the completions where `keep_G` (bool [G]) is true, every column cut to match."""
        keep_N = self.per_token(keep_G)
        kept = np.flatnonzero(keep_G)

        def column(values: np.ndarray | None, mask: np.ndarray) -> np.ndarray | None:
            return None if values is None else values[mask]

        return replace(
            self,
            lengths=self.lengths[keep_G],
            token_ids=self.token_ids[keep_N],
            logprobs=self.logprobs[keep_N],
            versions=self.versions[keep_N] if len(self.versions) else self.versions,
            finish_reasons=tuple(self.finish_reasons[i] for i in kept),
            texts=tuple(self.texts[i] for i in kept) if self.texts else (),
            rewards=column(self.rewards, keep_G),
            breakdown={name: values[keep_G] for name, values in self.breakdown.items()},
            invalid=(),
            reference_logprobs=column(self.reference_logprobs, keep_N),
            loss_mask=column(self.loss_mask, keep_N),
            values=column(self.values, keep_N),
            returns=column(self.returns, keep_N),
            advantages=column(self.advantages, keep_N),
        )
