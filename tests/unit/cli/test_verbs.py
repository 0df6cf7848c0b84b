"""Verbs that answer without starting a job."""

from __future__ import annotations

import json
import tomllib

import pytest

from rlhf_cluster.config.load import recipe_names


def test_the_schema_is_json_schema_of_a_job(rlhf):
    code, out, _ = rlhf("schema")
    schema = json.loads(out)
    assert code == 0
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "train" in schema["properties"]


def test_recipes_are_listed_as_a_table_and_as_json(rlhf):
    _, table, _ = rlhf("recipes", "list")
    _, as_json, _ = rlhf("recipes", "list", "-o", "json")
    assert [row["name"] for row in json.loads(as_json)] == recipe_names()
    assert len(table.splitlines()) == 1 + len(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_is_shown_as_the_file_that_it_is(rlhf, name):
    code, out, _ = rlhf("recipes", "show", name)
    assert code == 0
    assert tomllib.loads(out) == json.loads(rlhf("recipes", "show", name, "-o", "json")[1])


def test_a_recipe_that_does_not_exist_is_not_found(rlhf):
    code, _, err = rlhf("recipes", "show", "nothing-like-this")
    assert code == 3
    assert "nothing-like-this" in err


def test_models_are_listed_with_what_is_present(rlhf, tmp_path, monkeypatch):
    monkeypatch.setenv("RLHF_CLUSTER_HOME", str(tmp_path))
    _, as_json, _ = rlhf("models", "list", "-o", "json")
    assert {record["present"] for record in json.loads(as_json)} == {False}
    assert "smollm2-135m" in rlhf("models", "list")[1]


def test_an_unknown_model_cannot_be_added(rlhf, tmp_path, monkeypatch):
    monkeypatch.setenv("RLHF_CLUSTER_HOME", str(tmp_path))
    code, _, err = rlhf("models", "add", "smollm2")
    assert code == 2
    assert "smollm2-135m" in err


def test_a_conversation_as_json_is_refused(rlhf):
    code, _, err = rlhf("chat", "somewhere", "-o", "json")
    assert code == 2
    assert "--prompt" in json.loads(err)["error"]["message"]


def test_chat_with_a_directory_that_is_not_there_is_not_found(rlhf):
    assert rlhf("chat", "runs/nowhere/checkpoints/step-000001", "--prompt", "hello")[0] == 3


def test_eval_of_a_checkpoint_that_is_not_there_is_not_found(rlhf):
    assert rlhf("eval", "job.toml", "--checkpoint", "runs/nowhere")[0] == 3


def test_resuming_where_no_job_is_says_what_is_missing(rlhf, tmp_path):
    assert rlhf("resume", str(tmp_path / "nowhere"))[0] == 3


def test_an_export_is_a_model_and_never_takes_the_place_of_another(rlhf, tmp_path):
    from transformers import AutoModelForCausalLM

    from rlhf_cluster.testing import save_tiny_model

    model, target = save_tiny_model(tmp_path / "model"), tmp_path / "exported"
    code, out, _ = rlhf("export", str(model), "--to", str(target), "-o", "json")
    assert (code, json.loads(out)) == (0, {"path": str(target)})
    assert AutoModelForCausalLM.from_pretrained(target).num_parameters() > 0
    code, _, err = rlhf("export", str(model), "--to", str(target))
    assert code == 2
    assert "is there already" in err
    assert rlhf("export", str(tmp_path / "nothing"), "--to", str(target))[0] == 3
