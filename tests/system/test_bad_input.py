"""Bad prompts, bad rewards, bad settings, by command line: one clear message each, the exit code, no traceback."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

FAILED, USAGE, DONE = 1, 2, 0
TINY = (
    "runtime=local",
    "rollout.engine.type=transformers",
    "train.num_steps=1",
    "train.prompts_per_step=2",
    "train.completions_per_prompt=4",
    "evaluation.num_prompts=2",
    "evaluation.completions_per_prompt=1",
    'observers=["journal"]',
)

REWARDS = '''
"""Reward functions as users write them on a bad day."""

import math
import time


def raises(sample):
    raise ValueError("no answer in the row")


def hangs(sample):
    time.sleep(600)


def nan(sample):
    return math.nan


def string(sample):
    return "1.0"


def one(sample):
    return 1.0


def num_tokens(sample):
    assert sample.completion == ""
    return float(sample.num_tokens)


def words(sample):
    return float(len(set(sample.completion.split())))
'''


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "bad_rewards.py").write_text(REWARDS)
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)}


@pytest.fixture
def run(rlhf, env):
    return lambda *overrides: rlhf("run", "word-world", *TINY, *overrides, env=env)


def assert_one_message(done: Any, *, code: int, says: Sequence[str]) -> None:
    told = done.err
    assert done.code == code, f"exit code {done.code}\n{done.out}\n{told}"
    for noise in ("Traceback", "Warning", "never retrieved"):
        assert noise not in told
    assert [line.startswith("Error: ") for line in told.splitlines()].count(True) == 1, told
    for part in says:
        assert part in told, told


def prompts(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f'data={{train={{type="jsonl", path="{path}"}}}}'


def reward(name: str, **options: Any) -> str:
    fields = "".join(f", {key}={value}" for key, value in options.items())
    return f'rewards=[{{function="bad_rewards:{name}"{fields}}}]'


def test_an_empty_prompt_is_named_by_its_row(run, tmp_path):
    rows = [{"prompt": "hello friend"}, {"prompt": "   "}]
    done = run(prompts(tmp_path / "prompts.jsonl", rows))
    assert_one_message(done, code=USAGE, says=["prompts.jsonl", "row 1"])


def test_a_prompt_longer_than_the_context_is_named_by_its_row_and_length(run, tmp_path):
    rows = [{"prompt": "hello friend"}, {"prompt": "hello " * 500}]
    done = run(prompts(tmp_path / "prompts.jsonl", rows))
    assert_one_message(done, code=USAGE, says=["row 1: its prompt is 501 tokens long, at most 127 fit", "shorten"])


def test_a_file_without_rows_is_named(run, tmp_path):
    done = run(prompts(tmp_path / "prompts.jsonl", []))
    assert_one_message(done, code=USAGE, says=["prompts.jsonl"])


def test_duplicate_prompts_are_trained_on_as_prompts_of_their_own(run, tmp_path):
    rows = [{"prompt": "hello friend"}] * 3
    done = run(prompts(tmp_path / "prompts.jsonl", rows), reward("words"), "train.num_steps=2")
    assert done.code == DONE, done.err
    assert len(done.steps()) == 2


@pytest.fixture
def silent_model(tmp_path: Path, word_world_home: Path) -> Path:
    """The word-world model, changed so that it says nothing but the end token."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source, path = word_world_home / "models" / "word-world", tmp_path / "silent"
    tokenizer, model = AutoTokenizer.from_pretrained(source), AutoModelForCausalLM.from_pretrained(source)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        # Every token's hidden state is then a multiple of ones, which the end token's row answers to alone.
        model.get_input_embeddings().weight.fill_(0.01)
        model.get_input_embeddings().weight[tokenizer.eos_token_id] = 1.0
        model.model.norm.weight.fill_(1.0)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_completions_that_are_only_the_end_token_are_scored_as_empty_and_trained_on(run, silent_model):
    done = run(f"model={silent_model}", reward("num_tokens"), "algorithm.keep_zero_variance=true")
    assert done.code == DONE, done.err
    [step] = done.steps()
    assert (step["rollout/completion_length_mean"], step["reward/mean"]) == (1.0, 1.0)
    assert step["rollout/truncated_rate"] == step["driver/invalid_rate"] == 0.0


def test_rewards_that_are_all_equal_end_the_job_and_say_what_to_do(run):
    done = run(reward("one"), "limits.dropped_groups=4")
    assert_one_message(
        done,
        code=USAGE,
        says=["groups in a row teach nothing (zero_variance", "limits.dropped_groups is the bound", "job directory: "],
    )


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("raises", "raised: ValueError: no answer in the row"),
        ("nan", "not_a_number: returned nan (float)"),
        ("string", "not_a_number: returned '1.0' (str)"),
    ],
)
def test_a_reward_that_fails_ends_the_job_with_its_name_and_how_it_failed(run, name, says):
    done = run(reward(name), "reward_server.invalid_window=8")
    assert_one_message(done, code=FAILED, says=[f"reward '{name}' failed for", says, "max_invalid_rate"])


def test_a_reward_that_hangs_ends_the_job_within_its_limit(run):
    once = ("evaluation.num_prompts=1", "train.completions_per_prompt=2", "reward_server.invalid_window=8")
    done = run(reward("hangs", time_limit_s=0.2), *once)
    assert_one_message(done, code=FAILED, says=["reward 'hangs' failed for", "timed_out", "max_invalid_rate"])


def test_a_reward_that_does_not_exist_is_named_before_anything_is_generated(run):
    done = run('rewards=[{function="bad_rewards:rises"}]')
    assert_one_message(done, code=USAGE, says=["bad_rewards has no 'rises'", "raises"])


def test_an_unknown_key_is_answered_with_the_nearest_one(run):
    done = run("train.num_step=3")
    assert_one_message(done, code=USAGE, says=["train.num_step: unknown key (did you mean 'num_steps'?)"])
    assert not done.runs.exists()


@pytest.mark.parametrize(("holds", "says"), [({}, "config.json is missing"), ({"config.json": "{}"}, "weights")])
def test_a_directory_that_is_no_model_is_named(run, tmp_path, holds, says):
    model = tmp_path / "model"
    model.mkdir()
    for name, content in holds.items():
        (model / name).write_text(content)
    assert_one_message(run(f"model={model}"), code=USAGE, says=[str(model), says])


def test_a_model_with_a_damaged_file_is_named(run, tmp_path, word_world_home):
    model = tmp_path / "model"
    model.mkdir()
    for file in (word_world_home / "models" / "word-world").iterdir():
        content = file.read_bytes()
        (model / file.name).write_bytes(content[:5000] if file.suffix == ".safetensors" else content)
    assert_one_message(run(f"model={model}"), code=USAGE, says=[str(model)])
