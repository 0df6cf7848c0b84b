"""`rlhf pipeline`: what would run and why, what ran, and what made a model, as tables and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf_cluster.cli import pipeline
from rlhf_cluster.testing.pipelines import FakeJobs, save_stand_in_model, stage_table, write_pipeline


@pytest.fixture
def file(tmp_path: Path) -> Path:
    base = save_stand_in_model(tmp_path / "base")
    stages = {"tuned": stage_table("{sft.model}"), "sft": stage_table(str(base))}
    return write_pipeline(tmp_path / "tiny.yaml", stages)


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> FakeJobs:
    """In place of the child processes of stages; tests/system/test_pipeline.py has those."""
    jobs = FakeJobs()
    monkeypatch.setattr(pipeline, "run_stage", lambda job_dir, **_: jobs(job_dir))
    return jobs


def test_a_plan_shows_what_would_run_and_writes_nothing(rlhf, file, tmp_path):
    code, out, _ = rlhf("pipeline", "plan", str(file))
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["pipeline", "stage", "act", "why", "job_dir"],
        ["tiny", "sft", "run", "never", "run", "-"],
        ["tiny", "tuned", "run", "never", "run", "-"],
    ]
    assert not (tmp_path / "runs").exists()


def test_a_run_tells_each_stage_and_where_its_outputs_are(rlhf, file, jobs):
    code, out, err = rlhf("pipeline", "run", str(file), "seeds=[1,2]", "-o", "json")
    assert code == 0
    rows = json.loads(out)
    assert [(row["pipeline"], row["stage"]) for row in rows] == [
        ("tiny-seed-1", "sft"), ("tiny-seed-1", "tuned"), ("tiny-seed-2", "sft"), ("tiny-seed-2", "tuned"),
    ]  # fmt: skip
    assert all(Path(row["outputs"]["model"]).is_dir() for row in rows)
    assert "== tiny-seed-2 2/2 tuned: runs (never run) in " in err
    code, out, err = rlhf("pipeline", "run", str(file), "seeds=[1,2]")
    assert (code, len(jobs.ran)) == (0, 4)
    assert out.split()[:5] == ["pipeline", "stage", "took", "made", "job_dir"]
    assert err.count("unchanged") == 8


def test_a_plan_says_what_has_changed(rlhf, file, jobs):
    rlhf("pipeline", "run", str(file))
    _, out, _ = rlhf("pipeline", "plan", str(file), "sft.train.num_steps=4", "-o", "json")
    rows = {row["stage"]: row for row in json.loads(out)}
    assert rows["sft"]["why"] == ["changed: train.num_steps (2 -> 4)"]
    assert (rows["tuned"]["act"], rows["tuned"]["job_dir"]) == ("perhaps", None)


def test_many_reasons_are_shown_in_part_and_are_all_in_json(rlhf, file, jobs):
    rlhf("pipeline", "run", str(file))
    changes = [
        f"sft.{key}=7" for key in ("seed", "train.num_steps", "train.prompts_per_step", "evaluation.num_prompts")
    ]
    _, out, _ = rlhf("pipeline", "plan", str(file), *changes)
    assert "changed: seed (0 -> 7); " in out
    assert "; and 1 more" in out
    _, out, _ = rlhf("pipeline", "plan", str(file), *changes, "-o", "json")
    assert len(json.loads(out)[0]["why"]) == 4


def test_a_failed_stage_is_exit_code_1_and_an_interrupted_one_130(rlhf, file, jobs):
    for ended, expected in ((2, 1), (130, 130)):
        jobs.exit_codes["sft"] = ended
        code, _, err = rlhf("pipeline", "run", str(file))
        assert code == expected
        assert "sft-1" in err


def test_a_lineage_is_a_tree_and_as_json_the_whole_ancestry(rlhf, file, jobs):
    _, out, _ = rlhf("pipeline", "run", str(file), "-o", "json")
    model = json.loads(out)[1]["outputs"]["model"]
    code, out, _ = rlhf("pipeline", "lineage", model)
    assert code == 0
    assert out.startswith("tiny/tuned ")
    assert "\n  model = {sft.model}  " in out
    _, out, _ = rlhf("pipeline", "lineage", model, "-o", "json")
    assert [ancestor["stage"] for ancestor in json.loads(out)["ancestors"]] == ["sft", "tuned"]


@pytest.mark.parametrize(
    ("arguments", "expected", "says"),
    [
        (["run", "nowhere.toml"], 2, "nowhere.toml: no such pipeline file, and none of ours has that name"),
        (["lineage", "nowhere"], 3, "nowhere does not exist"),
        (["lineage", "."], 3, "only what a pipeline has made has a lineage"),
        (["plan", "tiny.yaml", "sfd.train.num_steps=1"], 2, "sfd: unknown key"),
    ],
)
def test_what_is_not_there_or_wrong_is_said(rlhf, file, monkeypatch, arguments, expected, says):
    monkeypatch.chdir(file.parent)
    code, _, err = rlhf("pipeline", *arguments)
    assert code == expected
    assert says in err
