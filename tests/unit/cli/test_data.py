"""`rlhf data`: what a job's data gives, and files of preferences."""

from __future__ import annotations

import json

import pytest

from rlhf_cluster.models.word_world import build_tokenizer
from rlhf_cluster.testing.models import save_tiny_model

PAIR = {"pair_id": "1", "prompt": "hello", "completion_a": "hi", "completion_b": "no"}


@pytest.fixture
def job(tmp_path):
    """A job that is taught from two files, one of them worded in two ways."""
    model = save_tiny_model(tmp_path / "model")
    build_tokenizer().save_pretrained(model)
    for name, num in (("sums", 6), ("greetings", 2)):
        rows = [{"prompt": f"what is {'please ' * n}", "completion": "two"} for n in range(1, num + 1)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    parts = f"""
        [[data.train.parts]]
        name = "sums"
        source = {{ type = "jsonl", path = "{tmp_path}/sums.jsonl" }}
        instructions = {{ prompts = ["{{prompt}} ?", "hello {{prompt}}"] }}
        [[data.train.parts]]
        name = "greetings"
        source = {{ type = "jsonl", path = "{tmp_path}/greetings.jsonl" }}
    """
    path = tmp_path / "job.toml"
    path.write_text(
        f"""
        name = "mixed"
        model = "{model}"
        rewards = []
        [algorithm]
        type = "sft"
        [data.train]
        type = "mixture"
        {parts}
        [rollout.engine]
        type = "transformers"
        [learner.optimizer]
        lr = 1e-3
        [train]
        num_steps = 1
        prompts_per_step = 4
        completions_per_prompt = 1
        """
    )
    return path


def test_a_mixture_is_reported_before_the_job_runs(rlhf, job):
    code, out, err = rlhf("data", "show", str(job), "--num", "500", "-o", "json")
    assert code == 0, err
    shown = json.loads(out)
    sums, greetings = shown["mixture"]["parts"]
    assert (shown["num_rows"], shown["num_skipped"]) == (8, 0)
    assert (sums["rate"], greetings["rate"]) == (0.75, 0.25)
    assert sums["num_drawn"] + greetings["num_drawn"] == 500
    assert set(sums["forms"]) == {"zero_shot/0", "zero_shot/1"}


def test_the_report_reads_as_a_table(rlhf, job):
    _, out, _ = rlhf("data", "show", str(job))
    assert out.startswith("8 rows, ")
    assert "the first 1,000 examples:\npart       rows  rate   drawn" in out
    assert "zero_shot/1" in out


def test_rows_that_are_left_out_are_counted(rlhf, job):
    _, out, _ = rlhf("data", "show", str(job), "data.max_tokens=7", "data.too_long=skip")
    assert "skipped" in out


def lines(path, *rows):
    path.write_text("".join(json.dumps({**PAIR, **row}) + "\n" for row in rows))
    return str(path)


def test_preferences_are_converted_and_come_back(rlhf, tmp_path):
    source = lines(tmp_path / "labels.jsonl", {"label": "b", "labeler": "ann"}, {"label": "b", "labeler": "bob"})
    parquet, again = str(tmp_path / "pairs.parquet"), tmp_path / "again.jsonl"
    assert rlhf("data", "convert", source, parquet)[0] == 0
    assert rlhf("data", "convert", parquet, str(again))[0] == 0
    rows = [json.loads(line) for line in again.read_text().splitlines()]
    assert [(row["chosen"], row["rejected"], row["labeler"]) for row in rows] == [
        ("no", "hi", "ann"),
        ("no", "hi", "bob"),
    ]


def test_several_judgements_become_one(rlhf, tmp_path):
    source = lines(tmp_path / "labels.jsonl", {"label": "a"}, {"label": "b"}, {"label": "b"}, {"label": None})
    code, out, _ = rlhf("data", "convert", source, str(tmp_path / "pairs.jsonl"), "--majority", "-o", "json")
    assert code == 0
    assert [json.loads(out)[name] for name in ("num_read", "num_written", "num_decided")] == [4, 1, 1]
    assert json.loads((tmp_path / "pairs.jsonl").read_text())["label"] == "b"


def test_a_suffix_that_is_none_is_wrong_usage(rlhf, tmp_path):
    code, _, err = rlhf("data", "convert", lines(tmp_path / "labels.jsonl", {}), str(tmp_path / "pairs.csv"))
    assert code == 2
    assert ".jsonl or .parquet" in err
