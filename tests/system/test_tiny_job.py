"""The tiny job from start to end, by command line: real vLLM, real Ray, a real (350k-parameter) model."""

from __future__ import annotations

import json
import math

import pytest

QUICK = ("algorithm.keep_zero_variance=true", "evaluation.num_prompts=8", "evaluation.completions_per_prompt=2")
SAME_EVERYWHERE = ("learner/loss", "learner/grad_norm", "learner/entropy", "learner/mismatch_kl", "reward/mean")

PAIRS = """
name = "pairs"
model = "word-world"
algorithm = {{ type = "{algorithm}" }}
learner = {{ precision = "fp32" }}
reference = {{ precision = "fp32" }}
train = {{ num_steps = 3, prompts_per_step = 4 }}
data.train = {{ type = "jsonl", path = "{pairs}" }}
data.eval = {{ type = "jsonl", path = "{pairs}" }}
ray = {{ object_store_gib = 0.2 }}
"""


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


@pytest.mark.parametrize(
    ("engine", "algorithm", "figures"),
    [
        (
            "vllm",
            ('algorithm={type="ppo", kl_coef=0.1, num_epochs=2, num_minibatches=2}', "reference.precision=fp32"),
            ("learner/value_loss", "learner/explained_variance", "learner/kl"),
        ),
        pytest.param("transformers", ('algorithm={type="grpo", keep_zero_variance=true}',), (), marks=pytest.mark.long),
    ],
)
def test_local_and_ray_give_the_same_job_bit_for_bit(rlhf, engine, algorithm, figures):
    few = ("train.num_steps=5", "train.prompts_per_step=4", *QUICK[1:])
    settings = (*algorithm, *few, f"rollout.engine.type={engine}", "rollout.temperature=0.8")
    local = rlhf("run", "word-world", *settings, "runtime=local", name="local")
    ray = rlhf("run", "word-world", *settings, "runtime=ray", name="ray")
    assert (local.code, ray.code) == (0, 0), local.err + ray.err
    assert len(local.steps()) == 5
    for here, there in zip(local.steps(), ray.steps(), strict=True):
        same = (*SAME_EVERYWHERE, *figures)
        assert {name: here[name] for name in same} == {name: there[name] for name in same}
        assert here["learner/mismatch_gap"] < 1e-4, "at any temperature"


@pytest.mark.parametrize("algorithm", [pytest.param("reward_model", marks=pytest.mark.long), "dpo"])
def test_pairs_teach_on_ray_what_they_teach_here(rlhf, tmp_path, algorithm):
    job = tmp_path / "pairs.toml"
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"{n} plus 2 ?", "chosen": f" it is {n + 2} .", "rejected": f" it is {n} ."} for n in range(8)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    job.write_text(PAIRS.format(algorithm=algorithm, pairs=pairs))
    local = rlhf("run", str(job), "runtime=local", name="local")
    ray = rlhf("run", str(job), "runtime=ray", name="ray")
    assert (local.code, ray.code) == (0, 0), local.err + ray.err
    same = ("learner/loss", "learner/grad_norm", "learner/margin", "learner/accuracy")
    for here, there in zip(local.steps(), ray.steps(), strict=True):
        assert {name: here[name] for name in same} == {name: there[name] for name in same}
    ends = [[event["metrics"] for event in run.journal() if event["event"] == "Evaluated"][-1] for run in (local, ray)]
    assert ends[0] == ends[1]


@pytest.mark.long
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


@pytest.mark.long
def test_staleness_stays_within_its_bound_when_generation_runs_ahead(rlhf):
    ahead = ("rollout.engine.type=transformers", "train.max_staleness=2", "rollout.num_workers=2")
    done = rlhf("run", "word-world", *QUICK, *ahead, "train.num_steps=12")
    assert done.code == 0, done.err
    ages = [step["driver/staleness_max"] for step in done.steps()]
    assert max(ages) <= 2
    assert max(ages) > 0, "generation ran ahead"
    assert all(math.isfinite(step["learner/loss"]) for step in done.steps())


def test_kl_to_the_reference_is_zero_before_the_first_step_and_grows(rlhf):
    scored = ("algorithm.kl_coef=0.01", "reference.precision=fp32")
    here = ("runtime=local", "rollout.engine.type=transformers")
    done = rlhf("run", "word-world", *QUICK, *scored, *here, "train.num_steps=6")
    assert done.code == 0, done.err
    kls = [step["learner/kl"] for step in done.steps()]
    assert abs(kls[0]) < 1e-6
    assert kls[-1] > 1e-4
