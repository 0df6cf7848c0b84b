"""Digests change with what a stage reads, and with nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rlhf_cluster.driver.checkpoint_manifest import seal
from rlhf_cluster.errors import CheckpointCorrupt, ModelError
from rlhf_cluster.pipeline import content
from rlhf_cluster.pipeline.content import code_digests, content_digest, inputs_on_disk
from rlhf_cluster.testing import make_job
from rlhf_cluster.testing.pipelines import WEIGHTS, save_stand_in_model


def job(**settings: str) -> dict:
    return make_job([f"{key.replace('__', '.')}={value}" for key, value in settings.items()]).model_dump(mode="json")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_stand_in_model(tmp_path / "base")


def test_a_model_is_its_weights_wherever_they_lie_and_whatever_state_lies_beside_them(model, tmp_path):
    before = content_digest(model)
    copy = save_stand_in_model(tmp_path / "other" / "step-000003")
    for name in ("learner_state.pt", "generators_rank-0.pt", "driver_state.json"):
        (copy / name).write_text(name)
    assert content_digest(copy) == before
    seal(copy, step=3, epoch=1)
    (copy / "lineage.json").write_text("{}")
    assert content_digest(copy) == before
    (model / WEIGHTS).write_text("other")
    assert content_digest(model) != before


def test_a_file_under_another_name_makes_another_directory(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").write_text("x")
    before = content_digest(tmp_path / "data")
    (tmp_path / "data" / "a").rename(tmp_path / "data" / "b")
    assert content_digest(tmp_path / "data") != before


def test_a_checkpoint_that_was_cut_off_is_refused_and_not_told_by_its_manifest(tmp_path):
    checkpoint = save_stand_in_model(tmp_path / "step-000001", "weights")
    seal(checkpoint, step=1, epoch=1)
    (checkpoint / WEIGHTS).write_text("we")
    with pytest.raises(CheckpointCorrupt, match=r"model\.safetensors is missing or cut off"):
        content_digest(checkpoint)


def test_what_is_not_there_has_no_digest(tmp_path):
    with pytest.raises(FileNotFoundError):
        content_digest(tmp_path / "nowhere")


def test_inputs_are_models_and_files_that_settings_name(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("prompts.jsonl").write_text("{}")
    Path("local").mkdir()  # also the name of a runtime
    found = inputs_on_disk(
        job(model=str(model), reference__model=str(model), data__train='{type="jsonl", path="prompts.jsonl"}')
    )
    assert found == {"model": model, "reference.model": model, "data.train.path": Path("prompts.jsonl")}


def test_a_file_counts_under_any_key_and_a_word_or_a_sentence_names_none(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("principles.toml", "word", "chat"):
        Path(name).write_text("x")
    settings = {"model": str(model), "constitution": "principles.toml", "mode": "word", "x": "A long sentence. " * 99}
    assert inputs_on_disk(settings) == {"model": model, "constitution": Path("principles.toml")}


def test_a_model_by_name_is_the_one_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RLHF_CLUSTER_HOME", str(tmp_path))
    cached = save_stand_in_model(tmp_path / "models" / "mine")
    assert inputs_on_disk(job(model="mine", reference__model="mine")) == {"model": cached, "reference.model": cached}


def test_a_model_to_train_that_is_not_there_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("RLHF_CLUSTER_HOME", str(tmp_path))
    with pytest.raises(ModelError, match="word-world is not on this machine yet: run `rlhf models add word-world`"):
        inputs_on_disk(job())


def test_where_outputs_go_is_no_input(model, tmp_path):
    assert inputs_on_disk(job(model=str(model), output_dir=str(tmp_path), weights__directory=str(tmp_path))).keys() == {
        "model"
    }


@pytest.mark.parametrize("kind", ["package", "single file"])
def test_code_that_settings_name_by_import_path_counts_and_is_not_imported(kind, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "lab_of_mine" / "rewards.py" if kind == "package" else tmp_path / "lab_of_mine.py"
    file.parent.mkdir(exist_ok=True)
    (file.parent / "__init__.py").touch()
    file.write_text("raise RuntimeError")
    name = "lab_of_mine.rewards:good" if kind == "package" else "lab_of_mine:good"
    settings = {"rewards": [{"function": name}], "model": "x"}
    before = code_digests(settings)
    assert before.keys() == {"rlhf_cluster", "lab_of_mine"}
    file.write_text("raise ValueError")
    after = code_digests(settings)
    assert (after["lab_of_mine"] != before["lab_of_mine"], after["rlhf_cluster"] == before["rlhf_cluster"]) == (
        True,
        True,
    )
    assert "lab_of_mine" not in sys.modules


def test_our_own_code_counts_as_far_as_a_job_runs_it(tmp_path, monkeypatch):
    for file in ("__init__.py", "cli/run.py", "learner/rank.py", "errors.py"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("before")
    monkeypatch.setattr(content.rlhf_cluster, "__file__", str(tmp_path / "__init__.py"))
    digests = []
    for file in (None, "cli/run.py", "learner/rank.py", "errors.py"):
        if file:
            (tmp_path / file).write_text("after")
        content._our_code.cache_clear()
        digests.append(content._our_code())
    content._our_code.cache_clear()
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
