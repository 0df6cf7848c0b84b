"""Seeds of completions, what others began of them, and groups put together from them."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.records import Prompt, RolloutRequest, Sampling
from rlhf_cluster.records.rollout import UNFINISHED
from rlhf_cluster.rollout.engines.request import (
    Completion,
    assemble,
    begun_completions,
    room_for_new_tokens,
    stream_seed,
)


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


@given(seed=st.integers(0, 2**70), one=st.integers(0, 5000), other=st.integers(0, 5000))
def test_a_completion_that_goes_on_draws_from_another_stream_at_every_length(seed, one, other):
    seeds = stream_seed(seed, num_begun=one), stream_seed(seed, num_begun=other)
    assert (seeds[0] == seeds[1]) == (one == other)
    assert stream_seed(seed, num_begun=0) == stream_seed(seed)


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


def completion_of(length: int, finish_reason: str) -> Completion:
    columns = [np.arange(length), -np.ones(length) / 3, np.full(length, 4)]
    return Completion(token_ids=columns[0], logprobs=columns[1], versions=columns[2], finish_reason=finish_reason)


def test_nothing_was_begun_of_a_new_request():
    completions = begun_completions(request_of(3), max_new_tokens=8)
    assert [(completion.num_tokens, completion.is_finished) for completion in completions] == [(0, False)] * 2


@given(lengths=st.tuples(st.integers(0, 8), st.integers(0, 8)))
def test_what_was_begun_goes_on_and_ends_where_there_is_no_room(lengths):
    parts = [completion_of(lengths[0], "stop"), completion_of(lengths[1], UNFINISHED)]
    begun = assemble(request_of(3), parts)
    completions = begun_completions(dataclasses.replace(request_of(3), begun=begun), max_new_tokens=5)
    assert completions[0].finish_reason == "stop"
    assert completions[1].finish_reason == ("length" if lengths[1] >= 5 else UNFINISHED)
    longer = assemble(request_of(3), [completions[0], completions[1].then(completion_of(3, "length"))])
    assert longer.lengths.tolist() == [lengths[0], lengths[1] + 3]
    for column in ("token_ids", "logprobs", "versions"):
        np.testing.assert_array_equal(getattr(longer, column)[:-3], getattr(begun, column))
