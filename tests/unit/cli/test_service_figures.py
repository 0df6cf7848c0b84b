"""Metrics, samples, logs and comparisons of jobs of a service, as tables and as JSON."""

from __future__ import annotations

import json

import pytest


@pytest.fixture(scope="module")
def job_id(running_service):
    """Ten steps, two samples, three lines."""
    job_id = running_service.run(running_service.submit("measured"))
    running_service.tell_steps(job_id, range(1, 11))
    running_service.write(job_id, "driver", "starting", "step \x1b[31m1")
    running_service.write(job_id, "rollout-0", "engine ready")
    running_service.sample(job_id, 3, ("what is it?", "a film", 0.75), ("how was it?", "so so", 0.25))
    return job_id


def out_of(answer):
    assert answer[0] == 0, answer
    return answer[1]


def test_the_newest_value_of_every_metric(rlhf, service, job_id):
    out = out_of(rlhf("metrics", job_id))
    assert out.startswith("step 10\n")
    assert ["learner/kl", "0.1"] in [line.split() for line in out.splitlines()]
    assert json.loads(out_of(rlhf("metrics", job_id, "-o", "json"))) == {
        "step": 10,
        "values": {"learner/kl": 0.1, "reward/mean": 1.0},
    }


def test_named_metrics_by_step_and_patterns(rlhf, service, job_id):
    lines = out_of(rlhf("metrics", job_id, "reward/*", "learner/kl")).splitlines()
    assert lines[0].split() == ["step", "reward/mean", "learner/kl"]
    assert lines[-1].split() == ["10", "1", "0.1"]
    (series,) = json.loads(out_of(rlhf("metrics", job_id, "reward/mean", "-o", "json")))
    assert (series["steps"][:2], series["values"][:2]) == ([1, 2], [0.1, 0.2])


def test_a_metric_that_is_not_there_is_not_found_with_a_hint(rlhf, service, job_id):
    code, _, err = rlhf("metrics", job_id, "reward/maen")
    assert (code, "did you mean 'reward/mean'?" in err) == (3, True)


def test_curves_as_text_rise_from_the_lower_left_to_the_upper_right(rlhf, service, job_id):
    out = out_of(rlhf("metrics", job_id, "--plot"))
    title, top, *_, bottom, axis = out.split("\n\n")[0].splitlines()
    assert title == "reward/mean"
    assert top.startswith("  1 ")
    assert bottom.startswith("0.1 ")
    assert top.rstrip("\u2800")[-1] != " "
    assert axis.split() == ["1", "10"]


def test_samples_with_reward_and_parts_in_the_order_asked_for(rlhf, service, job_id):
    assert out_of(rlhf("samples", job_id, "--sort", "best")) == (
        "step 3  reward 0.75  (fake 0.375)\n> what is it?\na film\n\n"
        "step 3  reward 0.25  (fake 0.125)\n> how was it?\nso so\n"
    )
    found = json.loads(out_of(rlhf("samples", job_id, "--search", "film", "--min-reward", "0.5", "-o", "json")))
    assert [sample["completion"] for sample in found] == ["a film"]
    assert out_of(rlhf("samples", job_id, "--step", "9")) == "there is no such sample\n"
    assert len(out_of(rlhf("samples", job_id, "--kind", "step", "--limit", "1", "-o", "jsonl")).splitlines()) == 1


def test_the_last_lines_of_all_components_or_of_one(rlhf, service, job_id):
    assert out_of(rlhf("logs", job_id)) == "driver  starting\ndriver  step \ufffd[31m1\nrollout-0  engine ready\n"
    assert out_of(rlhf("logs", job_id, "--tail", "1")) == "rollout-0  engine ready\n"
    assert out_of(rlhf("logs", job_id, "--component", "driver", "--search", "start")) == "driver  starting\n"
    line = json.loads(out_of(rlhf("logs", job_id, "--tail", "1", "-o", "json")))
    assert (line["component"], line["line"]) == ("rollout-0", "engine ready")


def test_jobs_are_compared_by_settings_and_figures(rlhf, service, job_id):
    other = service.run(service.submit("measured-too", "algorithm.kl_coef=0.25"))
    service.tell_steps(other, [1, 2])
    out = out_of(rlhf("compare", job_id, other, "--key", "reward/*", "--plot"))
    rows = [line.split() for line in out.splitlines()]
    assert ["algorithm.kl_coef", "0.0", "0.25"] in rows
    assert ["reward/mean", "1", "0.2"] in rows
    assert ["step", "10", "2"] in rows
    assert "learner/kl" not in out
    data = json.loads(out_of(rlhf("compare", job_id, other, "-o", "json")))
    assert data["metrics"]["learner/kl"] == [0.1, 0.02]
    assert data["settings"]["algorithm.kl_coef"] == [0.0, 0.25]


def test_a_comparison_needs_two_jobs(rlhf, service, job_id):
    assert rlhf("compare", job_id)[0] == 2


def test_a_job_that_has_measured_nothing_says_so(rlhf, service):
    service.submit("empty")
    assert out_of(rlhf("metrics", "empty")) == "nothing was measured yet\n"
    assert out_of(rlhf("metrics", "empty", "--plot")) == "nothing was measured yet\n"
    assert out_of(rlhf("logs", "empty")) == ""
