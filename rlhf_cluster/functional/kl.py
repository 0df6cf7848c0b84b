"""Per-token estimates of KL(policy || reference) from tokens that the policy sampled, and the coefficient's controller.

Of the three estimators of Schulman (http://joschu.net/blog/kl-approx.html), with d = log policy - log reference:

    estimator  value               as a value         gradient of its mean, used as a loss (arXiv:2506.09477)
    k1         d                   unbiased, noisy    zero in expectation: no loss at all; right inside a reward
    k2         d^2 / 2             biased, low noise  that of KL(policy || reference): the reverse KL one wants
    k3         exp(-d) - 1 + d     unbiased, >= 0     that of KL(reference || policy): GRPO's choice

The gradient column holds per token and on-policy. Inside a reward no gradient flows through the estimate; there k1 is
the unbiased one.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

Array = Any
"""A numpy array or a torch tensor: type checkers cannot follow one expression through both."""
Estimator = Literal["k1", "k2", "k3"]

MAX_LOG_RATIO = 20.0
"""Log-ratios are cut to +-20 before exp: e^20 is beyond any bound in use, and exp(89) is infinite in float32."""


def estimate(logprobs_N: Array, reference_logprobs_N: Array, *, estimator: Estimator) -> Array:
    """KL of `logprobs_N` from `reference_logprobs_N` by k1, k2 or k3 (Schulman 2020, "Approximating KL divergence").

    Both float [N], numpy or torch, of tokens sampled under the first; the result is float [N] in nats, not averaged.
    The gradient flows through `logprobs_N`. Raises `ValueError` for another estimator.
    """
    log_ratio_N = logprobs_N - reference_logprobs_N
    if estimator == "k1":
        return log_ratio_N
    if estimator == "k2":
        return 0.5 * log_ratio_N * log_ratio_N
    if estimator == "k3":
        # expm1 keeps the digits that `exp(-d) - 1 + d` loses near d = 0, where nearly all tokens are.
        return _expm1((-log_ratio_N).clip(-MAX_LOG_RATIO, MAX_LOG_RATIO)) + log_ratio_N
    raise ValueError(f"KL estimator {estimator!r}: choose k1, k2 or k3")


def adapted_coef(
    coef: float, kl: float, target: float, num_steps: int, horizon: float, *, max_error: float = 0.2
) -> float:
    """The KL coefficient of the next batch, by the proportional controller of arXiv:1909.08593, section 2.2.

        error = clip(kl / target - 1, -max_error, max_error)        coef * (1 + error * num_steps / horizon)

    `kl` and `target` are in nats per *completion*: the sum over its tokens, averaged over the batch. `num_steps` counts
    the completions of the batch, so that `horizon` (10,000 in their code and TRL's, a gain of 0.1 at batches of 1,024)
    counts completions too, and how fast the coefficient follows does not depend on the batch size. A fixed coefficient
    is this one never called. Raises `ValueError` unless target and horizon are above 0 and the result keeps its sign.
    """
    if target <= 0 or horizon <= 0:
        raise ValueError(f"target = {target} and horizon = {horizon} must both be above 0")
    if max_error * num_steps >= horizon:
        raise ValueError(f"horizon = {horizon} with {num_steps} completions a batch: set it above their number")
    error = min(max(kl / target - 1.0, -max_error), max_error)
    return coef * (1.0 + error * num_steps / horizon)


def _expm1(values: Array) -> Array:
    """Tensors have it as a method, numpy arrays do not."""
    return np.expm1(values) if isinstance(values, np.ndarray) else values.expm1()
