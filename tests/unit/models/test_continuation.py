from __future__ import annotations

from pathlib import Path

import pytest

from rlhf_cluster.errors import DataError, ModelError
from rlhf_cluster.models import word_world
from rlhf_cluster.models.continuation import Continuation
from rlhf_cluster.records import Sampling


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Continuation:
    directory = tmp_path_factory.mktemp("models") / "quick"
    directory.mkdir()
    word_world.make(directory, recipe=word_world.Recipe(num_steps=1, batch_size=2))
    return Continuation(directory)


def drawn(policy: Continuation, text: str, *, num_tokens: int = 12, temperature: float = 1.0, seed: int = 0) -> str:
    sampling = Sampling(max_new_tokens=num_tokens, temperature=temperature)
    return "".join(policy.stream(text, sampling, rendered=False, seed=seed))


def test_the_same_seed_writes_the_same_text_and_another_seed_another(policy):
    first = drawn(policy, "hello friend")
    assert drawn(policy, "hello friend") == first
    assert any(drawn(policy, "hello friend", seed=seed) != first for seed in range(1, 5))


def test_no_more_is_written_than_was_asked_for(policy):
    assert len(drawn(policy, "hello friend", num_tokens=3).split()) <= 3


def test_greedy_text_does_not_depend_on_the_seed(policy):
    texts = {drawn(policy, "hello friend", temperature=0.0, seed=seed) for seed in range(3)}
    assert len(texts) == 1


def test_closing_the_stream_ends_the_generation(policy):
    stream = policy.stream("hello", Sampling(max_new_tokens=100), rendered=False, seed=0)
    next(stream)
    stream.close()
    assert drawn(policy, "hello", num_tokens=2) is not None


def test_a_conversation_that_fills_the_context_is_refused(policy):
    with pytest.raises(DataError, match="the model reads 128"):
        drawn(policy, "hello " * 200)


def test_an_error_of_the_model_reaches_the_reader(policy, monkeypatch):
    monkeypatch.setattr(policy._model, "generate", lambda **_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        drawn(policy, "hello")


def test_a_directory_without_a_model_is_told(tmp_path: Path):
    with pytest.raises(ModelError, match="could not be loaded"):
        Continuation(tmp_path)
