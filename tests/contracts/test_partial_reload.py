"""Reloading only what changed leaves the engine as if everything had been loaded, and a wrong layer is still found."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from rlhf_cluster.errors import FingerprintMismatch, WeightError
from rlhf_cluster.models.load import load_causal_lm
from rlhf_cluster.records import LogitProbe, Prompt, RolloutGroup, RolloutRequest, Sampling, WeightHandle
from rlhf_cluster.rollout import proof
from rlhf_cluster.rollout.engines.transformers import TransformersEngine
from rlhf_cluster.rollout.engines.vllm import VllmEngine
from rlhf_cluster.testing import save_tiny_model
from rlhf_cluster.weights import flat

torch = pytest.importorskip("torch")

PROBE = np.array([5, 17, 3, 40, 9, 9, 2, 31, 12, 20], dtype=np.int32)
ENGINES = {"transformers": TransformersEngine(), "vllm": VllmEngine(kv_cache_gib=0.03, max_num_seqs=16)}
VOCAB_SIZE = 48  # Not a multiple of vLLM's padding of 64.
QUERY = "model.layers.1.self_attn.q_proj.weight"
NORM = "model.layers.0.input_layernorm.weight"
DOWN = "model.layers.0.mlp.down_proj.weight"
EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture(scope="module", params=ENGINES)
def opened(request, tmp_path_factory):
    """An open engine and `publish(version, *changed)`: the model's first weights with the named ones altered."""
    if request.param == "vllm":
        pytest.importorskip("vllm")
    model_path = save_tiny_model(tmp_path_factory.mktemp("model"))
    model = load_causal_lm(model_path, dtype=torch.float32)
    model.resize_token_embeddings(VOCAB_SIZE)
    model.save_pretrained(model_path)
    engine = ENGINES[request.param].open(model_path, threads=1)

    def publish(version: int, *changed: str) -> tuple[WeightHandle, np.ndarray]:
        model = load_causal_lm(model_path, dtype=torch.float32).eval().requires_grad_(False)
        for name in changed:
            parameter = model.get_parameter(name)
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)))
        manifest, buffer = flat.flatten(model.named_parameters(), version=version, dtype=torch.float32)
        logprobs = model(torch.from_numpy(PROBE.astype(np.int64))[None]).logits[0, :-1].log_softmax(-1)
        chosen = logprobs.gather(-1, torch.from_numpy(PROBE.astype(np.int64))[1:, None])[:, 0].numpy()
        probe = LogitProbe(token_ids=PROBE, logprobs=chosen, tolerance=1e-3)
        return WeightHandle(manifest=manifest, location=None, probe=probe), buffer

    yield SimpleNamespace(name=request.param, engine=engine, publish=publish)
    engine.close()


def generate(engine) -> RolloutGroup:
    """Greedy, and therefore the same under the same weights."""
    engine.submit(
        RolloutRequest(
            request_id=0,
            prompt=Prompt(prompt_id="0/0", text="", token_ids=np.array([5, 6, 7], np.int32)),
            num_completions=2,
            sampling=Sampling(max_new_tokens=24, temperature=0.0, ignore_eos=True),
            seed=0,
        )
    )
    groups = []
    while engine.num_in_flight():
        groups += engine.step()
    return groups[0]


@pytest.mark.parametrize(
    "changed",
    [(), (QUERY,), (NORM,), (DOWN, NORM), (EMBEDDING,), (EMBEDDING, QUERY)],
    ids=lambda names: str(len(names)),
)
def test_loading_what_changed_is_loading_everything(opened, changed):
    first, first_bytes = opened.publish(1)
    proof.load_and_prove(opened.engine, first, first_bytes)
    before = generate(opened.engine)
    second, second_bytes = opened.publish(2, *changed)
    proof.load_and_prove(opened.engine, second, second_bytes, proven=first.manifest)
    in_part = generate(opened.engine)
    proof.load_and_prove(opened.engine, second, second_bytes)
    whole = generate(opened.engine)
    np.testing.assert_array_equal(in_part.token_ids, whole.token_ids)
    np.testing.assert_array_equal(in_part.logprobs, whole.logprobs)
    assert (in_part.versions == 2).all()
    assert np.array_equal(before.logprobs, in_part.logprobs) == (not changed)


def test_parts_of_a_fused_matrix_are_loaded_together(opened):
    names = opened.engine.names_to_load(frozenset({QUERY, NORM}))
    fused = {QUERY, QUERY.replace("q_proj", "k_proj"), QUERY.replace("q_proj", "v_proj")} & set(names)
    assert NORM in names
    assert len(fused) == (3 if opened.name == "vllm" else 1)
    assert len(names) == 1 + len(fused)


@pytest.mark.parametrize("wrong", [QUERY, NORM, DOWN, EMBEDDING])
def test_a_layer_that_was_passed_over_wrongly_is_found(opened, wrong):
    """The engine holds another version than it is believed to: what is not loaded again stays wrong."""
    held, held_bytes = opened.publish(1, wrong)
    proof.load_and_prove(opened.engine, held, held_bytes)
    believed, _ = opened.publish(1)
    new, new_bytes = opened.publish(2, "model.norm.weight")
    with pytest.raises(WeightError):
        proof.load_and_prove(opened.engine, new, new_bytes, proven=believed.manifest)
    proof.load_and_prove(opened.engine, new, new_bytes)


def test_packed_matrices_that_were_not_reloaded_are_looked_at_in_turn(opened):
    if opened.name != "vllm":
        pytest.skip("packs nothing")
    from rlhf_cluster.rollout.engines import vllm_weights

    engine = opened.engine

    def check(version: int) -> int:
        return engine._llm.apply_model(
            lambda model: vllm_weights.check_packed(model, engine._published, version=version)
        )[0]

    def swap_two(model) -> None:
        one, other = (model.model.layers[layer].mlp.down_proj for layer in (0, 1))
        one.cpu_linear, other.cpu_linear = other.cpu_linear, one.cpu_linear

    first, first_bytes = opened.publish(1)
    proof.load_and_prove(engine, first, first_bytes)
    num_packed = check(1)
    second, second_bytes = opened.publish(2, NORM)
    proof.load_and_prove(engine, second, second_bytes, proven=first.manifest)
    checked = [check(version) for version in range(vllm_weights.ROTATION)]
    assert (sum(checked), max(checked) < num_packed) == (num_packed, True)
    engine._llm.apply_model(swap_two)
    with pytest.raises(FingerprintMismatch, match=r"does not hold what was published as model\.layers"):
        sum(check(version) for version in range(vllm_weights.ROTATION))
    # Loading everything packs them anew.
    proof.load_and_prove(engine, first, first_bytes)
    assert check(1) == num_packed
