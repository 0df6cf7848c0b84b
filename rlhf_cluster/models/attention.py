"""Attention for the learner's packed rows, registered with transformers under a name of its own.

torch's fused CPU kernel works in blocks made for long unmasked rows: on rows of 50 to 150 tokens plain matrix products
take a third of its CPU-seconds, on rows of 500 four fifths, but they keep their T x T weights for the backward pass. So
on a CPU microbatches whose weights are small go one way and everything else the other; both compute the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME = "packed_rows"
MAX_WEIGHTS = 10 * 2**20
"""Attention weights of one layer, rows x heads x T x T, up to which they are kept: 6 bytes each."""


def packed_rows_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """query [B,H,T,D], key and value [B,K,T,D], K dividing H, mask bool [B,1,T,T] or None for causal -> [B,T,H,D].

    The signature is transformers' (`AttentionInterface`); what it passes beyond this concerns caches and dropout, which
    the learner does not have.
    """
    keeps_weights = query.device.type == "cpu" and query[..., 0].numel() * query.shape[2] <= MAX_WEIGHTS
    if attention_mask is not None and keeps_weights:
        mixed = _plain(query, key, value, attention_mask, scaling)
    else:
        mixed = scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=attention_mask,
            is_causal=attention_mask is None,
            scale=scaling,
            enable_gqa=key.shape[1] != query.shape[1],
        )
    return mixed.transpose(1, 2).contiguous(), None


def _plain(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    """The heads that share a key are stacked into one product; softmax in float32."""
    num_rows, num_heads, length, width = query.shape
    num_keys = key.shape[1]
    stacked = query.reshape(num_rows, num_keys, -1, width)
    scores = (stacked @ key.transpose(-1, -2)) * (width**-0.5 if scaling is None else scaling)
    scores = scores.view(num_rows, num_keys, -1, length, length).masked_fill(~mask[:, :, None], float("-inf"))
    weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
    return (weights.view(num_rows, num_keys, -1, length) @ value).view(num_rows, num_heads, length, width)


AttentionInterface.register(NAME, packed_rows_attention)
