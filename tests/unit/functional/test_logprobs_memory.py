"""Memory of the vocabulary projection: the logits exist once at most, forward and backward, as the allocator saw it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile

from rlhf_cluster.functional import logprobs
from rlhf_cluster.functional.logprobs import chosen_logprobs

N, D, V = 256, 4, 4096
SLACK = 1.25
"""Beside the logits: hidden states, gradients of D columns, and a slice of a 64th of the rows in float32."""


@pytest.fixture(autouse=True)
def _few_rows_a_slice(monkeypatch):
    monkeypatch.setattr(logprobs, "CPU_SLICE_ELEMENTS", 4 * V)


def _inputs(dtype: torch.dtype):
    generator = torch.Generator().manual_seed(0)
    hidden_ND = torch.randn(N, D, generator=generator).to(dtype).requires_grad_()
    weight_VD = torch.randn(V, D, generator=generator).to(dtype).requires_grad_()
    return hidden_ND, weight_VD, torch.randint(V, (N,), generator=generator)


def _most_bytes_at_once(run: Callable[[], object]) -> int:
    """Of everything allocated while `run` runs, temporaries of kernels included."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))


def _forward_and_backward(dtype: torch.dtype, *, chunk: int, want_entropy: bool, autocast: bool) -> Callable[[], None]:
    hidden_ND, weight_VD, targets_N = _inputs(dtype)

    def run() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            logprobs_N, entropy_N = chosen_logprobs(
                hidden_ND, weight_VD, targets_N, chunk=chunk, want_entropy=want_entropy
            )
        (logprobs_N if entropy_N is None else logprobs_N + 0.1 * entropy_N).sum().backward()

    return run


@pytest.mark.parametrize("want_entropy", [False, True])
@pytest.mark.parametrize(
    ("dtype", "autocast"), [(torch.float32, False), (torch.bfloat16, False), (torch.float32, True)]
)
def test_logits_that_are_kept_for_the_backward_pass_are_never_held_twice(dtype, autocast, want_entropy):
    run = _forward_and_backward(dtype, chunk=N, want_entropy=want_entropy, autocast=autocast)
    logits_bytes = N * V * (2 if autocast else dtype.itemsize)
    assert logits_bytes <= _most_bytes_at_once(run) < SLACK * logits_bytes


@pytest.mark.parametrize("want_entropy", [False, True])
@pytest.mark.parametrize(
    ("dtype", "autocast"), [(torch.float32, False), (torch.bfloat16, False), (torch.float32, True)]
)
def test_logits_that_are_computed_again_are_never_held_beyond_one_chunk(dtype, autocast, want_entropy):
    run = _forward_and_backward(dtype, chunk=N // 4, want_entropy=want_entropy, autocast=autocast)
    chunk_bytes = N // 4 * V * (2 if autocast else dtype.itemsize)
    assert chunk_bytes <= _most_bytes_at_once(run) < 2 * chunk_bytes


def test_the_same_through_autograd_holds_them_several_times():
    hidden_ND, weight_VD, targets_N = _inputs(torch.bfloat16)

    def run() -> None:
        cross_entropy((hidden_ND @ weight_VD.T).float(), targets_N, reduction="sum").backward()

    assert _most_bytes_at_once(run) > 4 * N * V * torch.bfloat16.itemsize


def test_other_devices_upcast_a_part_of_a_chunk_at_a_time_too():
    logits_CV = torch.empty(1024, 49_152, dtype=torch.bfloat16, device="meta")
    parts = list(logprobs._slices(logits_CV))
    most_rows = max(part.stop - part.start for part in parts)
    # float32 logits and their log-softmax, beside the chunk itself in bfloat16
    assert 2 * most_rows * torch.float32.itemsize < len(logits_CV) * torch.bfloat16.itemsize
    assert parts[-1].stop >= len(logits_CV)
