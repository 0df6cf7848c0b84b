"""`rlhf report` on directories of evaluations by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rlhf_cluster.driver.evaluation_file import write_evaluation
from rlhf_cluster.records.events import Evaluated
from rlhf_cluster.testing import make_group, make_job


@pytest.fixture(autouse=True)
def _dirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, worth in (("sft", 0.0), ("ppo", 1.0)):
        groups = []
        for number in range(5):
            group = make_group([3, 4], request_id=number)
            rewards = np.array([worth, worth + number % 2], np.float32)
            prompt = replace(group.prompt, text=f"prompt {number}")
            groups.append(replace(group, prompt=prompt, rewards=rewards, breakdown={"gold": rewards}))
        Path(name).mkdir()
        event = Evaluated(time_s=1.0, step=1, metrics={}, groups=tuple(groups))
        write_evaluation(Path(name), make_job([f"name={name}"]), event)


def test_a_report_is_a_table_a_page_and_data(rlhf):
    code, out, _ = rlhf("report", "sft", "ppo")
    assert code == 0
    assert "against sft" in out
    assert out.splitlines()[0].split() == ["figure", "sft", "ppo"]
    assert "page  report.html" in out
    assert Path("report.html").read_text().startswith("<!doctype html>")
    code, out, _ = rlhf("report", "sft", "ppo", "--html", "again/other.html", "-o", "json")
    assert code == 0
    assert (
        json.loads(out)
        == json.loads(Path("again/other.json").read_text())
        == json.loads(Path("report.json").read_text())
    )


def test_another_baseline_turns_the_win_rate_around(rlhf):
    rates = []
    for arguments in (("sft", "ppo"), ("sft", "--against", "ppo")):
        data = json.loads(rlhf("report", *arguments, "-o", "json")[1])
        rates.append((data["against"], data["compared"][0]["win_rate"]["value"]))
    (first, forth), (second, back) = rates
    assert (first, second) == ("sft", "ppo")
    assert forth + back == pytest.approx(1.0)


def test_a_judge_of_a_file_is_asked_too(rlhf):
    Path("judge.toml").write_text('type = "rule"\nfunction = "word_world"\n')
    code, out, _ = rlhf("report", "sft", "ppo", "--judge", "judge.toml")
    assert code == 0
    assert "win rate by rule:word_world" in out


def test_what_cannot_be_reported_is_said(rlhf):
    Path("empty").mkdir()
    code, _, err = rlhf("report", "empty")
    assert code == 2
    assert "holds no evaluation.json" in err
    assert rlhf("report", "sft", "--by", "gild")[0] == 2
    assert rlhf("report")[0] == 2
