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
"""Logits per elementwise slice: 2 MiB in float32 stays in a core's cache."""
DEVICE_SLICE_ELEMENTS = 1 << 23
"""The same on other devices: 32 MiB in float32, enough work for a kernel and far from a second copy of a chunk."""


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

    Also the entropy of each row's distribution over the whole vocabulary (at `temperature`, in nats), float32 [N], or
    None unless asked for: it costs a pass over the logits, and another one backward if its gradient is used. Gradients
    reach hidden and weight from both. At most `chunk` rows of logits exist at a time: up to that many they are kept for
    the backward pass (`chunk * V` elements), beyond it every chunk is multiplied out a second time instead.

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
    """One chunk of C rows. With p = softmax(logits / T):
    d logprob / d logits = (onehot(target) - p) / T and d entropy / d logits = -p (log p + entropy) / T."""

    @staticmethod
    def forward(ctx, hidden_CD, weight_VD, targets_C, temperature, keep, want_entropy):
        logits_CV = hidden_CD @ weight_VD.T
        wide = torch.promote_types(logits_CV.dtype, torch.float32)
        logprobs_C = torch.empty(len(targets_C), dtype=wide, device=logits_CV.device)
        entropy_C = torch.empty_like(logprobs_C) if want_entropy else None
        for rows in _slices(logits_CV):
            scaled = _scaled(logits_CV[rows], temperature)
            if entropy_C is None:
                logprobs_C[rows] = -cross_entropy(scaled, targets_C[rows], reduction="none")
            else:
                all_logprobs = scaled.log_softmax(-1)
                logprobs_C[rows] = all_logprobs.gather(1, targets_C[rows].unsqueeze(1)).squeeze(1)
                entropy_C[rows] = -(all_logprobs.exp().mul_(all_logprobs)).sum(-1)
        ctx.save_for_backward(hidden_CD, weight_VD, targets_C, entropy_C)
        ctx.temperature = temperature
        ctx.logits_CV = logits_CV if keep else None
        ctx.set_materialize_grads(False)
        return logprobs_C, entropy_C

    @staticmethod
    def backward(ctx, *gradients):
        grad_C, entropy_grad_C = gradients
        if grad_C is None and entropy_grad_C is None:
            return None, None, None, None, None, None
        grad_C = torch.zeros_like(entropy_grad_C) if grad_C is None else grad_C
        hidden_CD, weight_VD, targets_C, entropy_C = ctx.saved_tensors
        # The kept logits turn into their own gradient in place, so a second backward pass has to compute them again.
        grad_CV = hidden_CD @ weight_VD.T if ctx.logits_CV is None else ctx.logits_CV
        ctx.logits_CV = None
        for rows in _slices(grad_CV):
            grad = (grad_C[rows] / ctx.temperature).unsqueeze(1)
            scaled = _scaled(grad_CV[rows], ctx.temperature)
            if entropy_grad_C is None:
                wide = scaled.softmax(-1).mul_(-grad)
            else:
                entropy_grad = (entropy_grad_C[rows] / ctx.temperature).unsqueeze(1)
                wide = _entropy_grad(scaled, entropy_C[rows].unsqueeze(1), entropy_grad, grad)
            grad_CV[rows] = wide.scatter_add_(1, targets_C[rows].unsqueeze(1), grad)
        grad_hidden = grad_CV @ weight_VD if ctx.needs_input_grad[0] else None
        grad_weight = grad_CV.T @ hidden_CD if ctx.needs_input_grad[1] else None
        return grad_hidden, grad_weight, None, None, None, None


def _entropy_grad(
    scaled: torch.Tensor, entropy: torch.Tensor, entropy_grad: torch.Tensor, grad: torch.Tensor
) -> torch.Tensor:
    """`-p (entropy_grad (log p + entropy) + grad)`, everything of one slice."""
    all_logprobs = scaled.log_softmax(-1)
    probabilities = all_logprobs.exp()
    return all_logprobs.add_(entropy).mul_(-entropy_grad).sub_(grad).mul_(probabilities)


def _slices(logits_CV: torch.Tensor) -> Iterator[slice]:
    num_rows, vocabulary = logits_CV.shape
    num_elements = CPU_SLICE_ELEMENTS if logits_CV.device.type == "cpu" else DEVICE_SLICE_ELEMENTS
    step = max(1, num_elements // vocabulary)
    return (slice(start, start + step) for start in range(0, num_rows, step))


def _scaled(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return wide if temperature == 1.0 else wide / temperature
