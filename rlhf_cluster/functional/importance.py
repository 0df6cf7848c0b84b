"""Importance ratios between policies: the one trained, the one at the start of the step, the one that sampled.

Three log-probabilities of the same token: `logprobs` under the policy being trained (with gradient), `old` under the
policy as it was when the step began, `behaviour` as the rollout engine reported it. Engine and learner never agree
exactly (kernels, dtypes), and with staleness the engine also served older weights: `old - behaviour` holds both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from rlhf_cluster.functional import segments
from rlhf_cluster.functional.kl import MAX_LOG_RATIO, estimate

if TYPE_CHECKING:
    import torch


def ratio(logprobs_N: torch.Tensor, old_logprobs_N: torch.Tensor) -> torch.Tensor:
    """Per-token probability ratio of PPO (arXiv:1707.06347, section 3): `exp(logprobs - old_logprobs)`.

    float [N], gradient through both. The log-ratio is cut to +-20, so a token far outside carries no gradient instead
    of an infinite one.
    """
    return (logprobs_N - old_logprobs_N).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def truncated_weight(old_logprobs_N: torch.Tensor, behaviour_logprobs_N: torch.Tensor, *, cap: float) -> torch.Tensor:
    """Truncated importance weight (Ionides 2008, doi:10.1198/106186008X320456): `min(exp(old - behaviour), cap)`.

    float [N], no gradient. Multiplied into the loss it corrects for tokens having been drawn by another policy than
    the one at the start of the step, as in decoupled PPO (AReaL, arXiv:2505.24298, section 5.2). Truncation from above
    only: bias where the weight would explode, none elsewhere. A cap of 2 is common for RL of language models.
    """
    return ratio(old_logprobs_N.detach(), behaviour_logprobs_N.detach()).clamp(max=cap)


def masked_weight(
    old_logprobs_N: torch.Tensor, behaviour_logprobs_N: torch.Tensor, *, low: float, high: float
) -> torch.Tensor:
    """Masked importance weight: `w = exp(old - behaviour)` where `low <= w <= high`, else 0. float [N], no gradient.

    Per token, as IcePop (Ring-1T, arXiv:2510.18855; `low` 0.5, `high` 5 there). A token on which engine and learner
    disagree beyond the bounds is left out rather than bounded; it still counts in the divisor of the mean.
    """
    weight_N = ratio(old_logprobs_N.detach(), behaviour_logprobs_N.detach())
    return weight_N.where((weight_N >= low) & (weight_N <= high), 0.0)


def sequence_weight(
    old_logprobs_N: torch.Tensor,
    behaviour_logprobs_N: torch.Tensor,
    sequence_N: torch.Tensor,
    *,
    num_sequences: int,
    mean: Literal["product", "geometric"] = "product",
    cap: float,
) -> torch.Tensor:
    """Truncated importance weight of whole completions, repeated over their tokens: float [N], no gradient.

    `mean="product"`: `min(exp(sum of old - behaviour), cap)`, the ratio of the probabilities of the completion,
    unbiased before truncation and of a variance that grows with the length (verl's and TRL's `sequence` level).
    `mean="geometric"`: the same with the mean over its tokens in place of the sum, the ratio of GSPO
    (arXiv:2507.18071, equation 7): biased, and of one scale for all lengths. `sequence_N` and `num_sequences` are as in
    `segments`.
    """
    over = {"product": segments.sums, "geometric": segments.means}[mean]
    log_ratio_S = over(old_logprobs_N - behaviour_logprobs_N, sequence_N, num_sequences).detach()
    return log_ratio_S.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp().clamp(max=cap)[sequence_N]


def sequence_ratio(
    logprobs_N: torch.Tensor, old_logprobs_N: torch.Tensor, sequence_N: torch.Tensor, *, num_sequences: int
) -> torch.Tensor:
    """Sequence ratio of GSPO (arXiv:2507.18071, equation 7): `exp(mean over a completion's tokens of logprobs - old)`.

    float [S], the geometric mean of the token ratios, with gradient: each of its T tokens gets `s / T`.
    """
    log_ratio_S = segments.means(logprobs_N - old_logprobs_N, sequence_N, num_sequences)
    return log_ratio_S.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def sequence_token_ratio(
    logprobs_N: torch.Tensor, old_logprobs_N: torch.Tensor, sequence_N: torch.Tensor, *, num_sequences: int
) -> torch.Tensor:
    """GSPO-token (arXiv:2507.18071, equation 14): `sg(s) * p / sg(p)`, float [N] with sg the stop of the gradient.

    Its value is the sequence ratio s at each token, its gradient in a token's log-probability is s. With advantages
    that are one number a completion, the mean over its tokens has the value and the gradient of GSPO itself.
    """
    ratio_S = sequence_ratio(logprobs_N, old_logprobs_N, sequence_N, num_sequences=num_sequences)
    return ratio_S.detach()[sequence_N] * (logprobs_N - logprobs_N.detach()).exp()


def mismatch_kl(old_logprobs_N: torch.Tensor, behaviour_logprobs_N: torch.Tensor) -> torch.Tensor:
    """k3 estimate (http://joschu.net/blog/kl-approx.html) of KL(behaviour || old), per token: float [N], >= 0.

    The behaviour policy sampled the tokens, so it is the first argument of the divergence. Zero means that engine and
    learner agree; 1e-3 is usual for bf16, far more points to wrong weights, wrong tokens or great staleness.
    """
    return estimate(behaviour_logprobs_N.detach(), old_logprobs_N.detach(), estimator="k3")


def mismatch_gap(old_logprobs_N: torch.Tensor, behaviour_logprobs_N: torch.Tensor) -> torch.Tensor:
    """Absolute log-probability gap `|old - behaviour|` in nats, per token: float [N]."""
    return (old_logprobs_N.detach() - behaviour_logprobs_N.detach()).abs()
