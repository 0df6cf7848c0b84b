"""What the pages show is run: the outside algorithm and rewards, and the metrics and events that a job reports."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rlhf_cluster.records import events

DOCS = Path(__file__).parents[2] / "deploy" / "docs"
NAME = re.compile(r"^\| `((?:driver|rollout|reward|learner|weights|eval|reference)/[\w/<>]+)` \|", re.MULTILINE)
SMALL = (
    "runtime=local",
    "rollout.engine.type=transformers",
    "train.num_steps=2",
    "train.prompts_per_step=2",
    "train.completions_per_prompt=4",
    "evaluation.num_prompts=2",
)


def test_the_algorithm_and_the_rewards_shown_run_from_an_outside_package(rlhf, my_lab):
    rewards = '[{function="my_lab.brevity:brief_answer", args={max_words=30}}, {function="my_lab.brevity:Thresholds"}]'
    algorithm = '{type="my_lab.rloo:RLOO", tis_cap=1.5}'
    done = rlhf(
        *("run", "word-world", *SMALL, f"rewards={rewards}", f"algorithm={algorithm}"),
        env={"PYTHONPATH": str(my_lab)},
    )
    assert done.code == 0, done.err
    for step in done.steps():
        assert step["reward/brief_answer"] + step["reward/Thresholds"] == pytest.approx(step["reward/mean"], abs=1e-6)
        assert step["learner/tis_weight"] == pytest.approx(1.0, abs=1e-3)
        assert step["learner/grad_norm"] > 0


def test_every_metric_that_a_job_reports_is_documented_and_every_documented_one_is_reported(rlhf):
    kl = ("algorithm.kl_coef=0.01", "reference.precision=fp32", "algorithm.keep_zero_variance=true")
    kl = (*kl, "evaluation.reference=true")
    done = rlhf("run", "word-world", *SMALL, *kl, 'rewards.0.name="rubric"')
    assert done.code == 0, done.err
    reported = {
        name.replace("/rubric", "/<name>")
        for event in done.journal()
        if event["event"] in ("StepDone", "Evaluated")
        for name in event["metrics"]
    }
    assert reported == set(NAME.findall((DOCS / "metrics.md").read_text(encoding="utf-8")))


def test_every_event_and_every_key_of_it_is_documented():
    page = (DOCS / "metrics.md").read_text(encoding="utf-8")
    kinds = [kind.__name__ for kind in events.Event.__subclasses__()]
    assert [name for name in kinds if f"| `{name}` |" not in page] == []
