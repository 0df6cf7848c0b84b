"""The contract of handing over, run on all engines: what one began another goes on with, and no token is lost."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from rlhf_cluster.errors import PromptTooLong
from rlhf_cluster.records import Prompt, RolloutGroup, RolloutRequest, Sampling
from rlhf_cluster.records.rollout import UNFINISHED
from rlhf_cluster.rollout.engines.scripted import ScriptedEngine
from rlhf_cluster.rollout.engines.transformers import TransformersEngine
from rlhf_cluster.rollout.engines.vllm import VllmEngine
from rlhf_cluster.weights import flat

torch = pytest.importorskip("torch")

VOCAB_SIZE, EOS, MAX_CONTEXT = 48, 1, 128
PROBE = np.array([5, 17, 3, 40], dtype=np.int32)
ENGINES = {
    "scripted": ScriptedEngine(vocab_size=VOCAB_SIZE, eos_token_id=EOS, max_context=MAX_CONTEXT, probe="digests"),
    "transformers": TransformersEngine(batch_size=12),
    "vllm": VllmEngine(kv_cache_gib=0.03, max_num_seqs=12),
}
"""Twelve completions at a time, so that some of fifteen have not started when the engine hands over."""


def tiny_llama(seed: int):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=MAX_CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=EOS,
        initializer_range=0.15,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module", params=ENGINES)
def pair(request, tmp_path_factory):
    """Two open engines, and `hold(engine, version)`; odd versions are one set of weights, even ones another."""
    if request.param == "vllm":
        pytest.importorskip("vllm")
    model_path = tmp_path_factory.mktemp("model")
    models = [tiny_llama(0), tiny_llama(1)]
    models[1].save_pretrained(model_path)
    first, second = (ENGINES[request.param].open(model_path, threads=1) for _ in range(2))

    def hold(engine, version: int) -> None:
        named = models[version % 2].named_parameters()
        manifest, buffer = flat.flatten(named, version=version, dtype=torch.float32)
        engine.load_weights(version, flat.unflatten(manifest, buffer))

    yield SimpleNamespace(name=request.param, first=first, second=second, hold=hold)
    first.close()
    second.close()


@pytest.fixture
def first(pair):
    return cleared(pair, pair.first)


@pytest.fixture
def second(pair):
    return cleared(pair, pair.second)


def cleared(pair, engine):
    engine.abort_all()
    pair.hold(engine, 1)
    return engine


def rollout_request(request_id: int, *, num_completions: int = 3, **sampling) -> RolloutRequest:
    return RolloutRequest(
        request_id=request_id,
        prompt=Prompt(prompt_id=f"{request_id}/0", text="", token_ids=np.array([5 + request_id, 6, 7], dtype=np.int32)),
        num_completions=num_completions,
        sampling=Sampling(**{"max_new_tokens": 30, **sampling}),
        seed=request_id,
    )


def finish(engine) -> dict[int, RolloutGroup]:
    groups = {}
    for _ in range(2000):
        groups |= {group.request_id: group for group in engine.step()}
        if not engine.num_in_flight():
            return groups
    raise AssertionError("requests are still in flight after 2000 steps")


def begin(engine, requests, *, num_steps: int) -> dict[int, RolloutGroup]:
    """What the engine returns and hands over after some steps, by request."""
    for request in requests:
        engine.submit(request)
    groups = [group for _ in range(num_steps) for group in engine.step()]
    groups += engine.hand_over()
    assert len(groups) == len(requests)
    return {group.request_id: group for group in groups}


def go_on(engine, requests, begun: dict[int, RolloutGroup]) -> dict[int, RolloutGroup]:
    for request in requests:
        engine.submit(dataclasses.replace(request, begun=begun[request.request_id]))
    return finish(engine)


def completions(group: RolloutGroup) -> list[tuple]:
    """(token ids, log-probabilities, versions, reason) of each."""
    ends = np.cumsum(group.lengths)[:-1]
    columns = [np.split(column, ends) for column in (group.token_ids, group.logprobs, group.versions)]
    return list(zip(*columns, group.finish_reasons, strict=True))


def assert_goes_on(whole: RolloutGroup, begun: RolloutGroup) -> None:
    """Every token of `begun` is there with its log-probability and version; what was finished stayed as it was."""
    assert whole.num_completions == begun.num_completions
    for after, before in zip(completions(whole), completions(begun), strict=True):
        for kept, generated in zip(after[:3], before[:3], strict=True):
            np.testing.assert_array_equal(kept[: len(generated)], generated)
        if before[3] != UNFINISHED:
            assert len(after[0]) == len(before[0])
            assert after[3] == before[3]


def assert_valid(group: RolloutGroup, *, max_new_tokens: int = 30) -> None:
    assert group.is_finished
    assert group.lengths.sum() == len(group.token_ids) == len(group.logprobs) == len(group.versions)
    assert [column.dtype for column in (group.lengths, group.token_ids, group.versions)] == [np.int32] * 3
    assert group.logprobs.dtype == np.float32
    for tokens, logprobs, _, reason in completions(group):
        assert (tokens[:-1] != EOS).all()
        assert (tokens[-1] == EOS) == (reason == "stop")
        assert reason == "stop" or len(tokens) == max_new_tokens
        assert (logprobs <= 0).all()
        assert np.isfinite(logprobs).all()


def test_every_token_of_the_first_part_is_kept_and_the_whole_is_valid(first, second):
    requests = [rollout_request(i) for i in range(5)]
    begun = begin(first, requests, num_steps=10)
    assert {*begun} == {*range(5)}
    assert UNFINISHED in {reason for group in begun.values() for reason in group.finish_reasons}
    whole = go_on(second, requests, begun)
    for request in requests:
        group = whole[request.request_id]
        assert group.prompt is request.prompt
        assert group.worker_id == ""
        assert_goes_on(group, begun[request.request_id])
        assert_valid(group)


@pytest.mark.parametrize("num_steps", [1, 7, 20])
def test_greedy_tokens_are_those_of_an_engine_that_was_not_interrupted(first, second, num_steps):
    requests = [rollout_request(i, temperature=0) for i in range(5)]
    whole = go_on(second, requests, begin(first, requests, num_steps=num_steps))
    for request in requests:
        first.submit(request)
    for request_id, uninterrupted in finish(first).items():
        np.testing.assert_array_equal(whole[request_id].token_ids, uninterrupted.token_ids)
        np.testing.assert_allclose(whole[request_id].logprobs, uninterrupted.logprobs, atol=1e-3)
        assert whole[request_id].finish_reasons == uninterrupted.finish_reasons


def test_what_is_drawn_after_the_hand_over_is_always_the_same(pair, first, second):
    requests = [rollout_request(i, ignore_eos=True) for i in range(3)]
    begun = begin(first, requests, num_steps=12)
    whole, again = go_on(second, requests, begun), go_on(first, requests, begun)
    for request in requests:
        first.submit(request)
    for request_id, uninterrupted in finish(first).items():
        np.testing.assert_array_equal(whole[request_id].token_ids, again[request_id].token_ids)
        if pair.name != "vllm":
            np.testing.assert_array_equal(whole[request_id].token_ids, uninterrupted.token_ids)
        for tokens, *_ in completions(whole[request_id]):
            assert tokens[:12].tolist() != tokens[12:24].tolist()


def test_tokens_bear_the_version_of_the_engine_that_sampled_them(pair, first, second):
    requests = [rollout_request(i, ignore_eos=True) for i in range(3)]
    for request in requests:
        first.submit(request)
    for _ in range(6):
        assert first.step() == []
    pair.hold(first, 2)
    for _ in range(6):
        assert first.step() == []
    begun = {group.request_id: group for group in first.hand_over()}
    pair.hold(second, 3)
    for request_id, group in go_on(second, requests, begun).items():
        assert_goes_on(group, begun[request_id])
        for (_, _, versions, _), length in zip(completions(group), begun[request_id].lengths, strict=True):
            assert {*versions[:length]} == {1, 2}
            assert {*versions[length:]} == {3}
            assert (np.diff(versions) >= 0).all()


def test_requests_that_have_not_started_are_handed_over_empty_and_lose_nothing(first, second):
    requests = [rollout_request(i) for i in range(3)]
    begun = begin(first, requests, num_steps=0)
    for group in begun.values():
        assert group.lengths.tolist() == [0, 0, 0]
        assert group.finish_reasons == (UNFINISHED,) * 3
        assert len(group.token_ids) == len(group.logprobs) == len(group.versions) == 0
    whole = go_on(second, requests, begun)
    for request in requests:
        first.submit(request)
    for request_id, uninterrupted in finish(first).items():
        np.testing.assert_array_equal(whole[request_id].token_ids, uninterrupted.token_ids)
        np.testing.assert_array_equal(whole[request_id].versions, uninterrupted.versions)


def test_finished_siblings_are_kept_as_they_are(first, second):
    requests = [rollout_request(i, num_completions=6, max_new_tokens=60) for i in range(2)]
    begun = begin(first, requests, num_steps=20)
    mixed = [group for group in begun.values() if {"stop", UNFINISHED} <= {*group.finish_reasons}]
    assert mixed
    whole = go_on(second, requests, begun)
    for group in mixed:
        assert_goes_on(whole[group.request_id], group)
        assert_valid(whole[group.request_id], max_new_tokens=60)


def test_a_group_may_be_handed_over_again_and_again(first, second):
    requests = [rollout_request(i) for i in range(5)]
    handed = begin(first, requests, num_steps=3)
    for turn in range(40):
        engine = (second, first)[turn % 2]
        before = handed
        begun = [dataclasses.replace(request, begun=before[request.request_id]) for request in requests]
        handed = begin(engine, begun, num_steps=3)
        for request_id, group in handed.items():
            assert_goes_on(group, before[request_id])
        if all(group.is_finished for group in handed.values()):
            break
    for group in handed.values():
        assert_valid(group)


def test_a_group_without_anything_unfinished_returns_at_the_next_step(first):
    request = rollout_request(0)
    first.submit(request)
    done = finish(first)[0]
    first.submit(rollout_request(1, ignore_eos=True))
    first.step()
    first.submit(dataclasses.replace(request, begun=done))
    assert first.num_in_flight() == 2
    [group] = first.step()
    assert group.request_id == 0
    assert completions_as_lists(group) == completions_as_lists(done)
    assert first.num_in_flight() == 1
    first.submit(dataclasses.replace(request, begun=done))
    assert [group.request_id for group in first.hand_over() if group.is_finished] == [0]


def completions_as_lists(group: RolloutGroup) -> list:
    return [[*(column.tolist() for column in columns), reason] for *columns, reason in completions(group)]


def test_a_group_that_finished_in_the_step_of_a_probe_is_handed_over_too(first):
    for steps_before in range(9):
        requests = [rollout_request(10 * steps_before + i, max_new_tokens=8, ignore_eos=True) for i in range(6)]
        requests = [dataclasses.replace(request, prompt=rollout_request(0).prompt) for request in requests]
        for request in requests:
            first.submit(request)
        groups = [group for _ in range(steps_before) for group in first.step()]
        first.probe(PROBE)
        groups += first.hand_over()
        assert {group.request_id for group in groups} == {request.request_id for request in requests}
        assert all((group.lengths == 8).all() == group.is_finished for group in groups)


def test_counters_never_fall_and_nothing_is_in_flight_afterwards(first, second):
    requests = [rollout_request(i, ignore_eos=True) for i in range(4)]
    counts = [first.tokens_generated()]
    for request in requests:
        first.submit(request)
    for _ in range(10):
        assert first.step() == []
        counts.append(first.tokens_generated())
    assert first.tokens_in_flight() == counts[-1] - counts[0] == 120
    first.abort([3])
    counts.append(first.tokens_generated())
    assert first.tokens_in_flight() == 90
    handed = {group.request_id: group for group in first.hand_over()}
    counts.append(first.tokens_generated())
    assert (np.diff(counts) >= 0).all()
    assert counts[-1] == counts[0] + 120
    assert (first.num_in_flight(), first.tokens_in_flight(), first.step(), first.hand_over()) == (0, 0, [], [])

    before = second.tokens_generated()
    for request in requests[:3]:
        second.submit(dataclasses.replace(request, begun=handed[request.request_id]))
    assert (second.tokens_generated(), second.tokens_in_flight()) == (before, 0)
    finish(second)
    assert (second.tokens_generated(), second.tokens_in_flight()) == (before + 3 * 3 * 20, 0)


def test_an_engine_that_handed_over_goes_on_serving(first):
    begin(first, [rollout_request(i) for i in range(5)], num_steps=5)
    first.submit(rollout_request(0))
    assert_valid(finish(first)[0])


def test_a_begun_prompt_without_room_is_refused_and_leaves_nothing_behind(first):
    request = rollout_request(0)
    begun = begin(first, [request], num_steps=2)[0]
    too_long = dataclasses.replace(request.prompt, token_ids=np.full(MAX_CONTEXT, 5, dtype=np.int32))
    with pytest.raises(PromptTooLong):
        first.submit(dataclasses.replace(request, prompt=too_long, begun=begun))
    assert first.num_in_flight() == 0
