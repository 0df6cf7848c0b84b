"""Log-probabilities of chosen tokens straight from hidden states, without holding a float32 copy of the logits.

The vocabulary projection is the widest tensor of a training step. Left to autograd, each of its [N, V] stages is kept
in float32. Here only the logits are, in the dtype of the projection, and only when they fit in one chunk; their softmax
is taken again in the backward pass, a few rows at a time while they are in the cache. Matrix products are then nearly
all that is left: on one CPU core at V = 49152, D = 576 in bf16 a forward and backward takes 0.7 of the CPU-seconds of
autograd through `cross_entropy`, about as many where the product is computed twice, and 0.6 without gradients.

Imports torch, unlike its neighbours: only the learner and the reference scorer use it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn.functional import cross_entropy

CPU_SLICE_ELEMENTS = 1 << 19
"""Logits per elementwise slice: 2 MiB in float32 stays in a core's cache. Other devices take a chunk at a time."""


def chosen_logprobs(
    hidden_ND: torch.Tensor,
    weight_VD: torch.Tensor,
    targets_N: torch.Tensor,
    *,
    temperature: float = 1.0,
    chunk: int = 1024,
    want_entropy: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """`log_softmax(hidden @ weight.T / temperature)` at `targets_N` (int64 [N]): float32 [N], in nats.

    Also the entropy of each row's distribution, float32 [N] without a gradient, or None unless asked for. Gradients
    reach hidden and weight. At most `chunk` rows of logits exist at a time: up to that many they are kept for the
    backward pass (`chunk * V` elements), beyond it every chunk is multiplied out a second time instead.

    The product runs in the dtype of autocast where that is on, else of `hidden_ND`; softmax and sum run in float32 (in
    float64 for float64 input).
    """
    device = hidden_ND.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_ND.dtype
    hidden_ND, weight_VD = hidden_ND.to(dtype), weight_VD.to(dtype)
    keep = len(targets_N) <= chunk
    with torch.autocast(device, enabled=False):
        parts = [
            _ChosenLogprobs.apply(hidden_CD, weight_VD, targets_C, temperature, keep, want_entropy)
            for hidden_CD, targets_C in zip(hidden_ND.split(chunk), targets_N.split(chunk), strict=True)
        ]
    logprobs_N = torch.cat([logprobs_C for logprobs_C, _ in parts])
    return logprobs_N, torch.cat([entropy_C for _, entropy_C in parts]) if want_entropy else None


class _ChosenLogprobs(torch.autograd.Function):
    """One chunk of C rows. d logprob / d logits = (onehot(target) - softmax(logits / T)) / T."""

    @staticmethod
    def forward(ctx, hidden_CD, weight_VD, targets_C, temperature, keep, want_entropy):
        logits_CV = hidden_CD @ weight_VD.T
        wide = torch.promote_types(logits_CV.dtype, torch.float32)
        logprobs_C = torch.empty(len(targets_C), dtype=wide, device=logits_CV.device)
        entropy_C = torch.empty_like(logprobs_C) if want_entropy else None
        for rows in _slices(logits_CV):
            scaled = _scaled(logits_CV[rows], temperature)
            logprobs_C[rows] = -cross_entropy(scaled, targets_C[rows], reduction="none")
            if entropy_C is not None:
                all_logprobs = scaled.log_softmax(-1)
                entropy_C[rows] = -(all_logprobs.exp() * all_logprobs).sum(-1)
        ctx.save_for_backward(hidden_CD, weight_VD, targets_C)
        ctx.temperature = temperature
        ctx.logits_CV = logits_CV if keep else None
        if entropy_C is not None:
            ctx.mark_non_differentiable(entropy_C)
        return logprobs_C, entropy_C

    @staticmethod
    def backward(ctx, *gradients):
        grad_C = gradients[0]
        hidden_CD, weight_VD, targets_C = ctx.saved_tensors
        # The kept logits turn into their own gradient in place, so a second backward pass has to compute them again.
        grad_CV = hidden_CD @ weight_VD.T if ctx.logits_CV is None else ctx.logits_CV
        ctx.logits_CV = None
        for rows in _slices(grad_CV):
            grad = (grad_C[rows] / ctx.temperature).unsqueeze(1)
            wide = _scaled(grad_CV[rows], ctx.temperature).softmax(-1)
            grad_CV[rows] = wide.mul_(-grad).scatter_add_(1, targets_C[rows].unsqueeze(1), grad)
        grad_hidden = grad_CV @ weight_VD if ctx.needs_input_grad[0] else None
        grad_weight = grad_CV.T @ hidden_CD if ctx.needs_input_grad[1] else None
        return grad_hidden, grad_weight, None, None, None, None


def _slices(logits_CV: torch.Tensor) -> Iterator[slice]:
    num_rows, vocabulary = logits_CV.shape
    step = max(1, CPU_SLICE_ELEMENTS // vocabulary) if logits_CV.device.type == "cpu" else max(1, num_rows)
    return (slice(start, start + step) for start in range(0, num_rows, step))


def _scaled(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return wide if temperature == 1.0 else wide / temperature
