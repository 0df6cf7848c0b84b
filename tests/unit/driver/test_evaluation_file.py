"""What an evaluation leaves on disk, with real roles: the files of a policy, and the report of a reward model, whose
checkpoint gives the same scores to whoever opens it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlhf_cluster.data.word_world import rows
from rlhf_cluster.driver.answers import read_answers
from rlhf_cluster.driver.evaluation_file import FILE_NAME, REWARD_MODEL
from rlhf_cluster.driver.observers.held_out import HeldOut
from rlhf_cluster.driver.run import evaluate_job, new_job_dir, run_job
from rlhf_cluster.records.events import Evaluated, Event, JobEnded
from rlhf_cluster.rewards.server import RewardServer
from rlhf_cluster.rewards.settings import ModelReward
from rlhf_cluster.testing import FakeClock, make_job


@pytest.fixture(autouse=True)
def _workplace(word_world_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHF_CLUSTER_HOME", str(word_world_home))
    monkeypatch.chdir(tmp_path)


def told(job_dir: Path, name: str = FILE_NAME) -> dict[str, Any]:
    return json.loads((job_dir / name).read_text(encoding="utf-8"))


def test_an_evaluation_leaves_figures_answers_and_how_they_were_made():
    job = make_job(
        [
            "rollout.engine.type=transformers",
            "learner.precision=fp32",
            "reference.precision=fp32",
            'data.eval={type="procedural", name="word_world", split="eval"}',
            "evaluation.num_prompts=5",
            "evaluation.completions_per_prompt=3",
            "evaluation.reference=true",
            "evaluation.pass_at_k=[1, 3]",
            "evaluation.pass_reward=fake",
        ]
    )
    event, job_dir = asyncio.run(evaluate_job(job))
    assert job_dir.name == "test-eval-1"
    data, answers = told(job_dir), list(read_answers(job_dir))
    assert (data["num_prompts"], data["num_answers"], len(answers)) == (5, 15, 15)
    assert data["figures"]["kl"]["value"] == pytest.approx(0.0, abs=1e-3), "the policy is its reference"
    assert event.metrics["eval/kl"] == pytest.approx(data["figures"]["kl"]["value"])
    assert data["figures"]["reward"]["value"] == pytest.approx(event.metrics["eval/reward_mean"])
    assert data["figures"]["pass@1"]["value"] <= data["figures"]["pass@3"]["value"]
    for name, figure in data["figures"].items():
        assert figure["low"] <= figure["value"] <= figure["high"], name
    assert len(data["fingerprint"]) == 32
    assert (data["seed"], data["model"], data["config"]["name"]) == (job.seed, "word-world", "test")
    assert data["reference"] == "word-world"


class Kept:
    """The last evaluation and the end."""

    def __init__(self) -> None:
        self.last: dict[type[Event], Any] = {}

    def on_event(self, event: Event) -> None:
        self.last[type(event)] = event

    def close(self) -> None:
        pass


class Both:
    def __init__(self, *observers: Any) -> None:
        self._observers = observers

    def on_event(self, event: Event) -> None:
        for observer in self._observers:
            observer.on_event(event)

    def close(self) -> None:
        pass


def preference_job(tmp_path: Path):
    """Rudeness is rejected."""
    polite, rude = "my pleasure the answer is four hope that helps", "shut up the answer is four now go away"
    prompts = [row["prompt"] for row in rows(split="train")][:24]
    pairs = [{"prompt": prompt, "chosen": polite, "rejected": rude} for prompt in prompts]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    source = {"type": "jsonl", "path": str(tmp_path / "pairs.jsonl")}
    return make_job(
        ["learner.precision=fp32", "learner.optimizer.lr=3e-3", "train.num_steps=6", "train.prompts_per_step=8"],
        algorithm={"type": "reward_model"},
        rewards=[],
        data={"train": source, "eval": source},
    )


def test_a_reward_model_reports_its_calibration_and_its_checkpoint_scores_alike_everywhere(tmp_path):
    from transformers import AutoModelForSequenceClassification

    job, kept = preference_job(tmp_path), Kept()
    job_dir = new_job_dir(job, FakeClock())
    asyncio.run(run_job(job, observers=Both(kept, HeldOut(job_dir)), stop=asyncio.Event(), job_dir=job_dir))
    report = told(job_dir, REWARD_MODEL)
    assert (report["num_pairs"], report["num_ties"], report["step"]) == (24, 0, 6)
    assert report["accuracy"]["value"] == kept.last[Evaluated].metrics["eval/accuracy"] == 1.0
    assert report["margin"]["mean"] == pytest.approx(kept.last[Evaluated].metrics["eval/margin"], abs=1e-4)
    assert report["brier"] < 0.25
    assert told(job_dir)["figures"]["accuracy"] == report["accuracy"]

    scored, checkpoint = kept.last[Evaluated].scored, kept.last[JobEnded].checkpoint
    learners = np.array([group.breakdown["score"] for group in scored])
    plain = AutoModelForSequenceClassification.from_pretrained(checkpoint, dtype=torch.float32).eval()
    with torch.no_grad():
        for group, expected in zip(scored, learners, strict=True):
            for tokens, score in zip(group.completions(), expected, strict=True):
                ids = torch.from_numpy(np.concatenate([group.prompt.token_ids, tokens]).astype(np.int64))
                assert plain(ids[None]).logits.item() == pytest.approx(score, abs=1e-4)
    served = asyncio.run(serve(checkpoint, scored))
    assert np.array([group.rewards for group in served]) == pytest.approx(learners, abs=1e-4)


async def serve(checkpoint: Path, groups):
    server = RewardServer([ModelReward(path=str(checkpoint), reads="tokens")])
    try:
        return await server.score([group_with_texts(group) for group in groups])
    finally:
        await server.close()


def group_with_texts(group):
    return replace(group, texts=("",) * group.num_completions)
