"""Importance ratios between policies: the one trained, the one at the start of the step, the one that sampled.

Three log-probabilities of the same token: `logprobs` under the policy being trained (with gradient), `old` under the
policy as it was when the step began, `behaviour` as the rollout engine reported it. Engine and learner never agree
exactly (kernels, dtypes), and with staleness the engine also served older weights: `old - behaviour` holds both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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


def mismatch_kl(old_logprobs_N: torch.Tensor, behaviour_logprobs_N: torch.Tensor) -> torch.Tensor:
    """k3 estimate (http://joschu.net/blog/kl-approx.html) of KL(behaviour || old), per token: float [N], >= 0.

    The behaviour policy sampled the tokens, so it is the first argument of the divergence. Zero means that engine and
    learner agree; 1e-3 is usual for bf16, far more points to wrong weights, wrong tokens or great staleness.
    """
    return estimate(behaviour_logprobs_N.detach(), old_logprobs_N.detach(), estimator="k3")


def mismatch_gap(old_logprobs_N: torch.Tensor, behaviour_logprobs_N: torch.Tensor) -> torch.Tensor:
    """Absolute log-probability gap `|old - behaviour|` in nats, per token: float [N]."""
    return (old_logprobs_N.detach() - behaviour_logprobs_N.detach()).abs()
