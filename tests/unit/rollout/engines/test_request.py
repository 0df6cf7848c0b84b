"""Seeds of completions, and groups put together from them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.records import Prompt, RolloutRequest, Sampling
from rlhf_cluster.rollout.engines.request import Completion, assemble, room_for_new_tokens, stream_seed


def request_of(num_prompt_tokens: int, *, max_new_tokens: int = 8) -> RolloutRequest:
    return RolloutRequest(
        request_id=3,
        prompt=Prompt(prompt_id="0/0", text="", token_ids=np.zeros(num_prompt_tokens, dtype=np.int32)),
        num_completions=2,
        sampling=Sampling(max_new_tokens=max_new_tokens),
        seed=0,
    )


@given(first=st.integers(0, 2**40), apart=st.integers(1, 1000))
def test_seeds_of_different_requests_lie_far_apart(first, apart):
    assert abs(stream_seed(first) - stream_seed(first + apart)) > 10_000
    assert 0 <= stream_seed(first) < 2**62


@given(num_prompt_tokens=st.integers(1, 99), max_new_tokens=st.integers(1, 200))
def test_prompt_and_completion_never_pass_the_context(num_prompt_tokens, max_new_tokens):
    room = room_for_new_tokens(request_of(num_prompt_tokens, max_new_tokens=max_new_tokens), max_context=100)
    assert 1 <= room <= max_new_tokens
    assert num_prompt_tokens + room <= 100


@given(lengths=st.lists(st.integers(0, 6), min_size=1, max_size=5))
def test_assembled_columns_divide_into_the_completions_again(lengths):
    completions = [
        Completion(
            token_ids=list(range(length)), logprobs=[-1.0] * length, versions=[4] * length, finish_reason="length"
        )
        for length in lengths
    ]
    group = assemble(request_of(3), completions)
    assert group.lengths.tolist() == lengths
    assert [tokens.tolist() for tokens in group.completions()] == [list(range(length)) for length in lengths]
    assert group.token_ids.dtype == group.versions.dtype == np.int32
    assert group.logprobs.dtype == np.float32
