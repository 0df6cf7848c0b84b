"""The two ways of attention over packed rows give the same output and the same gradients."""

from __future__ import annotations

import pytest
import torch

from rlhf_cluster.models import attention
from rlhf_cluster.models.policy import tree_mask

BRANCHES = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2], [0, 0, 1, 1, 1, 1, -1, -1]])


def attend(*, num_keys: int, max_weights: int, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Output and the gradients of query, key and value, of one random batch."""
    monkeypatch.setattr(attention, "MAX_WEIGHTS", max_weights)
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, heads, BRANCHES.shape[1], 16) for heads in (6, num_keys, num_keys)]
    inputs = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    mixed, _ = attention.packed_rows_attention(torch.nn.Identity(), *inputs, tree_mask(BRANCHES), scaling=0.3)
    (mixed * torch.randn(mixed.shape, generator=generator)).sum().backward()
    return [mixed.detach(), *(tensor.grad for tensor in inputs)]


@pytest.mark.parametrize("num_keys", [1, 2, 6])
def test_small_and_large_microbatches_are_computed_alike(num_keys, monkeypatch):
    plain = attend(num_keys=num_keys, max_weights=1 << 20, monkeypatch=monkeypatch)
    fused = attend(num_keys=num_keys, max_weights=0, monkeypatch=monkeypatch)
    for one, other in zip(plain, fused, strict=True):
        torch.testing.assert_close(one, other, atol=2e-6, rtol=1e-5)


def test_without_a_mask_it_is_causal(monkeypatch):
    monkeypatch.setattr(attention, "MAX_WEIGHTS", 0)
    query, key, value = torch.randn(3, 1, 2, 5, 8)
    mixed, _ = attention.packed_rows_attention(torch.nn.Identity(), query, key, value, None)
    later = value.clone()
    later[:, :, -1] += 1
    changed, _ = attention.packed_rows_attention(torch.nn.Identity(), query, key, later, None)
    torch.testing.assert_close(mixed[:, :-1], changed[:, :-1])
    assert not torch.equal(mixed[:, -1], changed[:, -1])
