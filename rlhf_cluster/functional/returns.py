"""What follows a token: discounted returns, and generalised advantages over a critic's values.

Two layouts of the same arithmetic. *Flat*: completions one after another in numpy columns [N] with `lengths` (int [G],
sum N), as rollout groups have them. *Padded*: [B, T] with a mask, bool or 0/1, numpy or torch.

Every token is an action and `values` belong to the state before it. A completion is an episode that ends with its last
token, cut off by a length limit or not: nothing follows, the value beyond is 0 (as in TRL, verl and OpenRLHF).

Where the mask is false there is no action: padding on either side, or what a user or a tool said in between. Such
positions are passed over, as if the trained tokens stood next to each other (verl's convention), and hold 0 in the
results whatever stood in the inputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any
"""A numpy array or a torch tensor: type checkers cannot follow one expression through both."""


def gae(
    rewards_N: np.ndarray, values_N: np.ndarray, lengths: np.ndarray, *, gamma: float = 1.0, lam: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Generalised advantage estimation (arXiv:1506.02438, equation 16) along each completion: advantages and returns.

        delta_t = r_t + gamma V_{t+1} - V_t        A_t = delta_t + gamma lam A_{t+1}        return_t = A_t + V_t

    float [N] each, flat, in the dtype of the inputs; not whitened. `lam = 0` gives one-step TD errors, `lam = 1` the
    discounted return less the value. The returns are the TD(lambda) targets that PPO's critic is trained towards.
    """
    mask_GT = _mask(lengths)
    advantages_GT, returns_GT = gae_padded(
        _padded(rewards_N, mask_GT), _padded(values_N, mask_GT), mask_GT, gamma=gamma, lam=lam
    )
    return advantages_GT[mask_GT], returns_GT[mask_GT]


def gae_padded(
    rewards_BT: Array, values_BT: Array, mask_BT: Array, *, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Array, Array]:
    """`gae` in the padded layout: float [B, T] each, 0 where `mask_BT` is false."""
    mask_BT = mask_BT != 0
    rewards_BT, values_BT = _where(mask_BT, rewards_BT), _where(mask_BT, values_BT)
    advantages_BT = values_BT * 0
    next_value_B = next_advantage_B = values_BT.sum(-1) * 0
    for t in reversed(range(values_BT.shape[1])):
        acts_B = mask_BT[:, t]
        delta_B = rewards_BT[:, t] + gamma * next_value_B - values_BT[:, t]
        advantage_B = _where(acts_B, delta_B + gamma * lam * next_advantage_B)
        advantages_BT[:, t] = advantage_B
        next_advantage_B = advantage_B + _where(~acts_B, next_advantage_B)
        next_value_B = values_BT[:, t] + _where(~acts_B, next_value_B)
    return advantages_BT, advantages_BT + values_BT


def discounted(rewards_N: np.ndarray, lengths: np.ndarray, *, gamma: float = 1.0) -> np.ndarray:
    """Discounted return from each token on, its own reward included: `R_t = r_t + gamma R_{t+1}`. float [N], flat.

    `gamma = 1` is the reward-to-go (Sutton and Barto, 2nd edition, section 3.3); only what follows within a completion.
    """
    mask_GT = _mask(lengths)
    return discounted_padded(_padded(rewards_N, mask_GT), mask_GT, gamma=gamma)[mask_GT]


def discounted_padded(rewards_BT: Array, mask_BT: Array, *, gamma: float = 1.0) -> Array:
    """`discounted` in the padded layout: float [B, T], 0 where the mask is false.

    It is the advantage over a critic that expects nothing, at lambda 1.
    """
    return gae_padded(rewards_BT, rewards_BT * 0, mask_BT, gamma=gamma, lam=1.0)[0]


def _mask(lengths: np.ndarray) -> np.ndarray:
    """bool [G, T], true for the tokens of each completion, T the greatest length."""
    lengths = np.asarray(lengths)
    return np.arange(lengths.max(initial=0)) < lengths[:, None]


def _padded(values_N: np.ndarray, mask_GT: np.ndarray) -> np.ndarray:
    values_GT = np.zeros(mask_GT.shape, dtype=np.result_type(values_N, np.float32))
    values_GT[mask_GT] = values_N
    return values_GT


def _where(mask: Array, values: Array) -> Array:
    """`values` where the mask is true, 0 elsewhere."""
    return np.where(mask, values, np.zeros_like(values)) if isinstance(values, np.ndarray) else values.where(mask, 0)
