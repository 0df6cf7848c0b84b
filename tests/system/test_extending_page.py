"""The package that `extending.md` shows: its job trains, its algorithm keeps the contract, wrong names are told so."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

from rlhf_cluster.algorithms import resolve
from rlhf_cluster.data.settings import ProceduralSource
from rlhf_cluster.data.sources import read_rows
from rlhf_cluster.errors import ConfigError
from rlhf_cluster.pipeline.content import code_digests
from rlhf_cluster.rewards.settings import FunctionReward

PAGE = (Path(__file__).parents[2] / "deploy" / "docs" / "extending.md").read_text(encoding="utf-8")
MESSAGES = re.findall(r"^```text\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[-1].splitlines()
RAFT = "my_lab.algorithms:RAFT"


@pytest.fixture
def on_path(my_lab, monkeypatch):
    monkeypatch.syspath_prepend(my_lab)
    return my_lab


def test_the_job_trains_by_the_labs_own_algorithm_rewards_and_data(rlhf, my_lab):
    small = ("train.num_steps=6", "evaluation.num_prompts=1", "evaluation.completions_per_prompt=1")
    done = rlhf("run", str(my_lab / "job.toml"), *small, env={"PYTHONPATH": str(my_lab)})
    assert done.code == 0, done.err
    assert list(done.runs.glob("*/checkpoints/step-000006/model.safetensors"))
    steps = done.steps()
    for step in steps:
        assert np.isfinite(step["learner/loss"])
        assert 0 < step["learner/imitated"] < 1
        assert step["reward/is_right"] + 0.5 * step["reward/opens_with"] == pytest.approx(step["reward/mean"], abs=1e-6)
    first, last = (np.mean([step["reward/mean"] for step in part]) for part in (steps[:2], steps[-2:]))
    assert last > first + 0.1


def test_what_it_imitates_is_the_best_of_each_group(on_path):
    from rlhf_cluster.testing import make_group

    group = make_group((2, 1, 3))
    assert group.rewards is not None
    group.rewards[:] = (0.5, 1.5, 0.0)
    [credited] = resolve({"type": RAFT, "num_best": 2}).credit([group])
    np.testing.assert_array_equal(credited.advantages, [1, 1, 1, 0, 0, 0])
    assert resolve({"type": RAFT, "num_best": 2}).normaliser([credited]) == 3


def test_the_shown_test_of_the_contract_passes(on_path):
    runpy.run_path(str(on_path / "test_my_lab.py"))["test_raft_keeps_the_contract"]()


def test_held_out_sums_are_no_training_sums_and_demonstrations_are_recorded_examples(on_path):
    train, held_out = (
        {
            row.prompt: row.item["answer"]
            for row in read_rows(ProceduralSource(name="my_lab.data:questions", split=split))
        }
        for split in ("train", "eval")
    )
    assert len(train) + len(held_out) == 36
    assert not train.keys() & held_out.keys()
    shown = read_rows(ProceduralSource(name="my_lab.data:demonstrations", num_rows=9))
    assert [train[row.prompt] in row.item["completion"].split() for row in shown] == [True] * 9


@pytest.mark.parametrize("message", MESSAGES)
def test_a_wrong_name_is_told_as_the_page_says(message, on_path):
    wrong = {
        "RATF": lambda: resolve({"type": "my_lab.algorithms:RATF"}),
        "mylab": lambda: resolve({"type": "mylab.algorithms:RAFT"}),
        "one colon": lambda: resolve({"type": "my_lab:algorithms:RAFT"}),
        "opens_with": lambda: FunctionReward(function="my_lab.rewards:opens_with").check(),
        "larges'": lambda: read_rows(ProceduralSource(name="my_lab.data:questions", arguments={"larges": 3})),
    }
    [raise_it] = [each for word, each in wrong.items() if word in message]
    with pytest.raises(ConfigError) as caught:
        raise_it()
    assert str(caught.value) == message


def test_a_change_in_the_package_makes_a_stage_of_a_pipeline_anew(on_path):
    job = {"algorithm": {"type": RAFT}}
    before = code_digests(job)["my_lab"]
    (on_path / "my_lab" / "notes.txt").write_text("tried: num_best = 4")
    assert code_digests(job)["my_lab"] != before
