"""The tiny job from start to end, by command line: real vLLM, real Ray, a real (350k-parameter) model."""

from __future__ import annotations

import math

import pytest

QUICK = ("algorithm.keep_zero_variance=true", "evaluation.num_prompts=8", "evaluation.completions_per_prompt=2")
SAME_EVERYWHERE = ("learner/loss", "learner/grad_norm", "learner/entropy", "learner/mismatch_kl", "reward/mean")


def test_word_world_learns_on_ray_with_vllm_and_leaves_what_it_promises(rlhf):
    done = rlhf("run", "word-world", "train.num_steps=25")
    assert done.code == 0, done.err
    evaluated = [event["metrics"]["eval/reward_mean"] for event in done.journal() if event["event"] == "Evaluated"]
    assert evaluated[0] < 0.1
    assert evaluated[-1] > 0.9
    steps = done.steps()
    assert len(steps) == 25
    assert all(step["driver/staleness_max"] == 0 for step in steps)
    assert all(step["learner/mismatch_gap"] < 1e-4 for step in steps), "vLLM in fp32 samples from the learner's policy"
    assert all(step["weights/probe_gap"] < 1e-4 for step in steps)
    [job_dir] = done.runs.iterdir()
    for left in ("job.json", "journal.jsonl", "curve.png", "checkpoints/step-000025/model.safetensors"):
        assert (job_dir / left).is_file(), left
    assert "rlhf chat" in done.out


@pytest.mark.parametrize("engine", ["vllm", "transformers"])
def test_local_and_ray_give_the_same_job_bit_for_bit(rlhf, engine):
    settings = (*QUICK, f"rollout.engine.type={engine}", "train.num_steps=10", "train.prompts_per_step=4")
    local = rlhf("run", "word-world", *settings, "runtime=local", name="local")
    ray = rlhf("run", "word-world", *settings, "runtime=ray", name="ray")
    assert (local.code, ray.code) == (0, 0), local.err + ray.err
    assert len(local.steps()) == 10
    for here, there in zip(local.steps(), ray.steps(), strict=True):
        assert {name: here[name] for name in SAME_EVERYWHERE} == {name: there[name] for name in SAME_EVERYWHERE}


def test_a_resumed_job_gives_the_losses_of_one_that_never_stopped(rlhf):
    settings = (*QUICK, "runtime=local", "rollout.engine.type=transformers", "train.prompts_per_step=4")
    unbroken = rlhf("run", "word-world", *settings, "train.num_steps=6", name="unbroken")
    assert unbroken.code == 0, unbroken.err
    often = ("checkpoint.every_steps=2", "checkpoint.keep=3")
    broken = rlhf("run", "word-world", *settings, "train.num_steps=6", *often, name="broken")
    [job_dir] = broken.runs.iterdir()
    for late in ("step-000004", "step-000006"):
        (job_dir / "checkpoints" / late).rename(job_dir / f"lost-{late}")
    resumed = rlhf("resume", str(job_dir))
    assert resumed.code == 0, resumed.err
    losses = [step["learner/loss"] for step in broken.steps()]
    assert losses[:6] == [step["learner/loss"] for step in unbroken.steps()]
    assert losses[-4:] == losses[2:6], "steps 3 to 6 again, from the checkpoint of step 2"


def test_staleness_stays_within_its_bound_when_generation_runs_ahead(rlhf):
    done = rlhf("run", "word-world", *QUICK, "train.num_steps=12", "train.max_staleness=2", "rollout.num_workers=2")
    assert done.code == 0, done.err
    ages = [step["driver/staleness_max"] for step in done.steps()]
    assert max(ages) <= 2
    assert max(ages) > 0, "generation ran ahead"
    assert all(math.isfinite(step["learner/loss"]) for step in done.steps())


def test_kl_to_the_reference_is_zero_before_the_first_step_and_grows(rlhf):
    done = rlhf("run", "word-world", *QUICK, "algorithm.kl_coef=0.01", "train.num_steps=6", "reference.precision=fp32")
    assert done.code == 0, done.err
    kls = [step["learner/kl"] for step in done.steps()]
    assert abs(kls[0]) < 1e-6
    assert kls[-1] > 1e-4
