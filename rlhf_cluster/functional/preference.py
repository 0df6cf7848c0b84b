"""Losses of preferences: which of two completions is better, or whether one is good at all.

Tensors are float [G], one value a pair, or [S], one a completion; results have that shape: nothing is masked, summed or
averaged here. A `logprob` is log p(completion | prompt) in nats, summed over its tokens unless the function says that
it is averaged; a `log_ratio` is that of the policy minus that of the frozen reference, and the latter has no gradient.
`chosen` is the preferred one. Only methods of tensors are used, in their dtype, so importing this loads no torch.

`label_smoothing` is the probability that a label is wrong (0 <= eps <= 1/2), a number or [G]: a loss f of a logit x,
any margin in it, becomes `(1 - eps) f(x) + eps f(-x)`. At 1/2 it is a tie, and without a margin the order of the two is
of no matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

PairLoss = Literal["sigmoid", "ipo", "hinge"]

MAX_LOGPROB = -1e-7
"""Mean log-probabilities are cut to it before odds are taken: certainty has infinite odds."""


def bradley_terry_loss(
    chosen_G: torch.Tensor,
    rejected_G: torch.Tensor,
    *,
    margin_G: torch.Tensor | float = 0.0,
    label_smoothing: torch.Tensor | float = 0.0,
    tied_G: torch.Tensor | None = None,
) -> torch.Tensor:
    """Negative log-likelihood of Bradley-Terry (InstructGPT, arXiv:2203.02155, equation 1): `-log sigmoid(c - r - m)`.

    `chosen_G` and `rejected_G` are scores of a reward model; the gradient flows through both. `margin_G` >= 0 is by how
    much the chosen one should win (Llama 2, arXiv:2307.09288, section 3.2.2); 0 is none.

    `tied_G` (bool [G]) marks pairs that people found equal. Of the two conventions in use (a soft label, or the model
    of Rao and Kupper with a probability of ties of its own) this is the soft label: both orders with weight 1/2 and no
    margin, `-(log sigmoid(d) + log sigmoid(-d)) / 2`. It is least, log 2, at equal scores, so it pulls them together.
    """
    difference_G = chosen_G - rejected_G
    if tied_G is None:
        return logistic_loss(difference_G - margin_G, label_smoothing=label_smoothing)
    margin_G = (difference_G.new_zeros(()) + margin_G).where(~tied_G, 0.0)
    label_smoothing = (difference_G.new_zeros(()) + label_smoothing).where(~tied_G, 0.5)
    return logistic_loss(difference_G - margin_G, label_smoothing=label_smoothing)


def centering_penalty(chosen_G: torch.Tensor, rejected_G: torch.Tensor, *, coef: float = 0.01) -> torch.Tensor:
    """`coef * (chosen + rejected)^2` (Eisenstein et al., arXiv:2312.09244): added to Bradley-Terry it centres scores.

    Bradley-Terry knows only differences, so without it the scores of each prompt may drift by any constant.
    """
    return coef * (chosen_G + rejected_G) ** 2


def pairs(rewards_S: torch.Tensor, group_S: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """All pairs within each group (InstructGPT, arXiv:2203.02155, section 3.5): indices of S, int64 [P] and [P].

    Of a pair the first has the greater reward; of a tie, which is a pair too, the first comes first. A group of K
    completions gives K (K - 1) / 2 pairs.
    """
    same_SS = group_S[:, None] == group_S[None, :]
    greater_SS = rewards_S[:, None] > rewards_S[None, :]
    tied_SS = (rewards_S[:, None] == rewards_S[None, :]).triu(diagonal=1)
    first_P, second_P = (same_SS & (greater_SS | tied_SS)).nonzero(as_tuple=True)
    return first_P, second_P


def implicit_reward(logprob_S: torch.Tensor, reference_S: torch.Tensor | float, *, beta: float) -> torch.Tensor:
    """The reward that a policy implies (DPO, arXiv:2305.18290, section 5): `beta * (logprob - reference)`.

    Up to a constant of the prompt, which no difference of two completions sees. The gradient flows through `logprob_S`.
    """
    return beta * (logprob_S - reference_S)


def accuracy(chosen_G: torch.Tensor, rejected_G: torch.Tensor, *, equal: float = 0.5) -> torch.Tensor:
    """1 where the chosen reward is above the rejected one, 0 where below: float [G], without a gradient.

    Where they are equal, `equal`: 0.5 is what a coin would get, and DPO, which begins at its reference, is there at
    first; 0 counts only strict wins, as TRL does.
    """
    difference_G = (chosen_G - rejected_G).detach()
    return (difference_G > 0).to(difference_G.dtype) + equal * (difference_G == 0).to(difference_G.dtype)


def dpo_loss(
    chosen_G: torch.Tensor,
    rejected_G: torch.Tensor,
    *,
    beta: float = 0.1,
    loss_type: PairLoss = "sigmoid",
    label_smoothing: torch.Tensor | float = 0.0,
) -> torch.Tensor:
    """DPO and its kin, of the log-ratios of the two completions; h = `chosen_G - rejected_G`.

    - `sigmoid`: `-log sigmoid(beta h)` (DPO, arXiv:2305.18290, equation 7). With `label_smoothing` it is conservative
      DPO (cDPO, https://ericmitchell.ai/cdpo.pdf), least where `beta h = log((1 - eps) / eps)`.
    - `ipo`: `(h - 1 / (2 beta))^2` (arXiv:2310.12036, equation 17, whose tau is `beta`), least at that margin instead
      of at infinity. The paper's log-ratios are sums over tokens; TRL takes means. Both are a matter of what is passed.
    - `hinge`: `max(0, 1 - beta h)` (SLiC-HF, arXiv:2305.10425, as normalised in RSO, arXiv:2309.06657).

    Log-probabilities in place of log-ratios make it reference-free: a uniform reference.
    """
    h_G = chosen_G - rejected_G
    if loss_type == "sigmoid":
        return logistic_loss(beta * h_G, label_smoothing=label_smoothing)
    if loss_type == "ipo":
        target = 1.0 / (2.0 * beta)
        return (1 - label_smoothing) * (h_G - target) ** 2 + label_smoothing * (h_G + target) ** 2
    if loss_type == "hinge":
        wins_G, loses_G = (1 - beta * h_G).clamp(min=0), (1 + beta * h_G).clamp(min=0)
        return (1 - label_smoothing) * wins_G + label_smoothing * loses_G
    raise ValueError(f"loss_type {loss_type!r}: choose sigmoid, ipo or hinge")


def kto_loss(
    log_ratio_S: torch.Tensor,
    desirable_S: torch.Tensor,
    *,
    beta: float = 0.1,
    z0: torch.Tensor | float = 0.0,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> torch.Tensor:
    """KTO (arXiv:2402.01306, equation 8), of single completions: `w (1 - sigmoid(s (beta log_ratio - beta z0)))`.

    `desirable_S` is bool [S]; s is +1 and w `desirable_weight` where it is true, else -1 and `undesirable_weight`. This
    is the paper's `lambda_y - v(x, y)`; where one kind is rarer, its weight should make up for it.

    `z0`, one number in nats, is the KL of policy from reference that gains and losses are measured from; see
    `kto_baseline`. It is cut to >= 0 here and carries no gradient. z0 = 0 is APO-zero for unpaired data
    (arXiv:2408.06266).
    """
    z0 = (log_ratio_S.new_zeros(()) + z0).detach().clamp(min=0)
    gain_S = beta * (log_ratio_S - z0)
    return (desirable_weight * (-gain_S).sigmoid()).where(desirable_S, undesirable_weight * gain_S.sigmoid())


def kto_baseline(mismatched_log_ratio_S: torch.Tensor) -> torch.Tensor:
    """z0 of KTO (arXiv:2402.01306, section 4.1): the mean log-ratio under prompts of others.

    Cut to >= 0, a scalar without a gradient. Take it over the whole batch: the mean of a part of it is another number.
    """
    return mismatched_log_ratio_S.detach().mean().clamp(min=0)


def odds_ratio_loss(
    chosen_G: torch.Tensor, rejected_G: torch.Tensor, *, label_smoothing: torch.Tensor | float = 0.0
) -> torch.Tensor:
    """The preference term of ORPO (arXiv:2403.07691, equation 7): `-log sigmoid` of the log odds ratio.

    That is log odds(chosen) - log odds(rejected).     Takes log-probabilities averaged over tokens. The whole loss is
    the negative log-likelihood of the chosen completion plus the paper's lambda times this (equation 6).
    """
    return logistic_loss(log_odds(chosen_G) - log_odds(rejected_G), label_smoothing=label_smoothing)


def simpo_loss(
    chosen_G: torch.Tensor,
    rejected_G: torch.Tensor,
    *,
    beta: float = 2.0,
    gamma: float = 1.0,
    label_smoothing: torch.Tensor | float = 0.0,
) -> torch.Tensor:
    """SimPO (arXiv:2405.14734, equation 6): `-log sigmoid(beta (chosen - rejected) - gamma)`.

    Takes log-probabilities averaged over tokens. `gamma` is a margin between rewards, so it is not multiplied by
    `beta`; where a library asks for gamma / beta, that is this `gamma` over `beta`.
    """
    return logistic_loss(beta * (chosen_G - rejected_G) - gamma, label_smoothing=label_smoothing)


def logistic_loss(logits_G: torch.Tensor, *, label_smoothing: torch.Tensor | float = 0.0) -> torch.Tensor:
    """`-(1 - eps) log sigmoid(x) - eps log sigmoid(-x)`: cross-entropy of sigmoid(x) with the label 1 - eps.

    Finite, with gradients, for every finite x; at x = 0 it is log 2, whatever eps.
    """
    zero = logits_G.new_zeros(())
    return (1 - label_smoothing) * (-logits_G).logaddexp(zero) + label_smoothing * logits_G.logaddexp(zero)


def log_odds(logprob_S: torch.Tensor) -> torch.Tensor:
    """`log(p / (1 - p))` of p = exp(`logprob_S`) <= 1 (ORPO, arXiv:2403.07691, equation 4), up to 16."""
    logprob_S = logprob_S.clamp(max=MAX_LOGPROB)
    return logprob_S - log1mexp(logprob_S)


def log1mexp(values: torch.Tensor) -> torch.Tensor:
    """`log(1 - exp(x))` of x < 0 to full precision (Maechler 2012, "Accurately computing log(1 - exp(-|a|))").

    Near 0 `expm1` keeps the digits that 1 - exp(x) loses; far below, `log1p` keeps those of a tiny exp(x).
    """
    near = values > -0.693
    # Each branch is given only values that it can bear: the gradient of the other one is multiplied by 0, not left out.
    return (-values.where(near, -0.1).expm1()).log().where(near, (-values.where(~near, -1.0).exp()).log1p())
