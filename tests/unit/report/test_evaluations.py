"""Directories of evaluations are read, named apart, and connected with the job that has trained the model."""

from __future__ import annotations

import pytest

from rlhf_cluster.driver.evaluation_file import FILE_NAME
from rlhf_cluster.errors import DataError
from rlhf_cluster.report.evaluations import read_evaluations


def test_figures_and_answers_are_those_that_were_written(evaluated):
    [found] = read_evaluations([evaluated("sft", [("a", [0.0, 1.0]), ("b", [2.0, 1.0])])])
    assert (found.name, found.data["step"], len(found.answers)) == ("sft", 7, 4)
    assert found.figures["reward"].value == 1.0
    assert found.rewards == ["reward", "gold", "proxy"]
    assert [len(answers) for answers in found.by_prompt().values()] == [2, 2]


def test_two_evaluations_of_one_name_are_called_by_their_directories_and_each_counts_once(evaluated):
    first, second = evaluated("sft", [("a", [0.0])]), evaluated("sft", [("a", [1.0])], folder="sft-2")
    assert [each.name for each in read_evaluations([first, second, first])] == ["sft-1", "sft-2"]


def test_an_evaluated_checkpoint_has_the_curves_of_its_job(evaluated, journal_of, tmp_path):
    journal_of(tmp_path / "ppo-1", {"eval/reward_mean": [0.1, 0.5]})
    checkpoint = tmp_path / "ppo-1" / "checkpoints" / "step-000001"
    [of_checkpoint] = read_evaluations([evaluated("ppo", [("a", [0.0])], folder="x", job=[f"model={checkpoint}"])])
    [of_a_name] = read_evaluations([evaluated("base", [("a", [0.0])])])
    assert of_checkpoint.curves.series == {"eval/reward_mean": [(0, 0.1), (1, 0.5)]}
    assert of_a_name.curves.series == {}


def test_a_job_that_was_evaluated_on_the_way_has_its_own_curves(evaluated, journal_of):
    job_dir = evaluated("ppo", [("a", [0.0])])
    journal_of(job_dir, {"eval/reward_mean": [0.2]})
    [found] = read_evaluations([job_dir])
    assert found.curves.series == {"eval/reward_mean": [(0, 0.2)]}


def test_a_figure_without_bounds_stays_without(evaluated):
    [found] = read_evaluations([evaluated("sft", [("the only prompt", [0.0, 1.0])])])
    value, low, high = found.figures["reward"]
    assert value == 0.5
    assert low != low
    assert high != high


def test_a_directory_without_an_evaluation_says_what_to_do(tmp_path, evaluated):
    with pytest.raises(DataError, match=r"holds no evaluation\.json: .*rlhf eval JOB --checkpoint DIR"):
        read_evaluations([tmp_path])
    job_dir = evaluated("sft", [("a", [0.0])])
    (job_dir / FILE_NAME).write_text("{")
    with pytest.raises(DataError, match=r"evaluation\.json is damaged"):
        read_evaluations([job_dir])
