"""Plans: batch arithmetic, what each role reserves, sizes from the files' headers, and what can never fit."""

from __future__ import annotations

import pytest

from rlhf_cluster.config import JobConfig
from rlhf_cluster.errors import CannotFit, ConfigError, ModelError
from rlhf_cluster.models.registry import resolve
from rlhf_cluster.models.size import model_size
from rlhf_cluster.runtime.placement import GIB, Machine, Plan, plan, reservations
from rlhf_cluster.testing import make_job

LARGE = Machine(cpus=8, gpus=0, memory_bytes=64 * GIB)


@pytest.fixture(autouse=True)
def _models(word_world_home, monkeypatch):
    monkeypatch.setenv("RLHF_CLUSTER_HOME", str(word_world_home))


def made(*overrides: str, machine: Machine = LARGE) -> Plan:
    return plan(make_job(overrides), machine)


def roles_of(planned: Plan) -> dict[str, int]:
    return {role.role: role.num_replicas for role in planned.roles}


def test_the_batch_arithmetic_is_spelt_out():
    planned = made("train.prompts_per_step=16", "train.completions_per_prompt=8", "train.num_steps=1000")
    assert planned.arithmetic.startswith("16 prompts x 8 completions = 128 sequences = 1 optimizer step; 1000 steps")
    assert "128,000 completions of at most 8 tokens" in planned.arithmetic
    assert planned.lines()[0] == f"test: {planned.arithmetic}"


@pytest.mark.parametrize(
    ("staleness", "says"),
    [(0, "synchronous"), (2, "up to 6 prompts under way, none trained on more than 2 versions late")],
)
def test_staleness_is_spelt_out(staleness, says):
    assert says in made(f"train.max_staleness={staleness}").staleness


def test_only_the_roles_that_the_algorithm_needs_are_planned():
    assert roles_of(made()) == {"rollout worker": 1, "reward server": 1, "learner": 1}
    assert "reference scorer" in roles_of(made("algorithm.kl_coef=0.1"))
    assert roles_of(made("algorithm.type=sft", "rewards=[]")) == {"learner": 1}
    on_rollouts = made("algorithm.type=sft", "rewards=[]", "train.learn_from=rollouts")
    assert roles_of(on_rollouts) == {"rollout worker": 1, "learner": 1}


def test_reservations_are_the_sum_over_replicas():
    job = make_job(
        ["rollout.num_workers=3", "rollout.cpus=2", "learner.cpus=1.5", "rollout.gpus=1", "algorithm.kl_coef=1"]
    )
    assert reservations(job, spares=False) == {"CPU": 3 * 2 + 1.5 + 1 + 1, "GPU": 3}


def test_custom_resources_are_reserved_and_planned():
    overrides = ["rollout.num_workers=3", "rollout.resources={fast=1}", "learner.resources={fast=0.5, big=1}"]
    wanted = reservations(make_job(overrides), spares=False)
    assert (wanted["fast"], wanted["big"]) == (3.5, 1)
    assert any(line.startswith("learner") and line.endswith("fast=0.5  big=1") for line in made(*overrides).lines())


@pytest.mark.parametrize(
    ("resources", "says"),
    [("{GPU=1}", "use gpus"), ("{memory=5}", "'memory' is not reserved"), ("{fast=0}", "greater than 0")],
)
def test_what_is_no_custom_resource_is_refused(resources, says):
    with pytest.raises(ConfigError, match=says):
        make_job([f"rollout.resources={resources}"])


def test_spares_are_planned_beside_what_the_job_needs_to_start():
    warm = ["rollout.num_workers=2", "rollout.cpus=2", "rollout.spares=1", "learner.spare=true"]
    planned = made(*warm)
    assert roles_of(planned) == {"rollout worker": 3, "reward server": 1, "learner": 2}
    assert any("rollout worker" in line and " 2+1 " in line for line in planned.lines())
    assert reservations(make_job(warm), spares=False)["CPU"] == 2 * 2 + 1 + 1
    assert reservations(make_job(warm), spares=True)["CPU"] == 3 * 2 + 1 + 2 == planned.cpus


def test_the_size_of_a_model_is_read_from_its_headers(word_world_home):
    from transformers import AutoModelForCausalLM

    path = resolve("word-world")
    size = model_size(path)
    model = AutoModelForCausalLM.from_pretrained(path)
    assert size.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert size.num_layers == 2
    assert size.layer_parameters == sum(parameter.numel() for parameter in model.model.layers[0].parameters())
    assert f"{size.num_parameters:,} parameters travel as bfloat16" in made().weights


def test_a_larger_batch_or_more_workers_need_more_memory():
    one = made("rollout.engine.type=transformers")
    assert made("rollout.engine.type=transformers", "rollout.num_workers=3").memory_bytes > one.memory_bytes
    assert made("rollout.engine.type=transformers", "learner.microbatch_tokens=65536").memory_bytes > one.memory_bytes


def learner_bytes(*overrides: str) -> int:
    planned = made(*overrides, machine=Machine(cpus=8, gpus=1, memory_bytes=64 * GIB))
    return next(role.memory_bytes for role in planned.roles if role.role == "learner")


def test_adapters_cost_their_own_parameters_and_a_frozen_model():
    size = model_size(resolve("word-world"))
    whole, adapters = learner_bytes(), learner_bytes("learner.lora.rank=4")
    # Two layers: q, k, v, o of 128 x 128, two of 256 x 128 and one of 128 x 256.
    trained = 2 * 4 * (4 * (128 + 128) + 3 * (128 + 256))
    assert adapters - whole == 16 * trained + 2 * size.num_parameters - 16 * size.num_parameters
    assert learner_bytes("learner.lora.rank=8") - adapters == 16 * trained
    only_two = learner_bytes("learner.lora.rank=4", 'learner.lora.target_modules=["q_proj", "v_proj"]')
    assert adapters - only_two == 16 * (trained - 2 * 4 * 2 * (128 + 128))
    in_4_bits = learner_bytes("learner.lora.rank=4", "learner.lora.quantise=nf4", "learner.gpus=1")
    assert adapters - in_4_bits == pytest.approx((2 - 0.516) * 2 * size.layer_parameters, abs=2)


def test_too_little_memory_is_refused_with_the_largest_role_and_what_helps():
    with pytest.raises(
        CannotFit, match=r"need about .* GiB and this machine has 0\.5 GiB; the most goes to 1 x learner"
    ):
        made(machine=Machine(cpus=2, gpus=0, memory_bytes=GIB // 2))


def test_gpus_that_are_not_there_are_refused():
    with pytest.raises(CannotFit, match=r"reserve 2 GPUs and this machine has 1: set gpus = 0"):
        made("rollout.gpus=2", machine=Machine(cpus=2, gpus=1, memory_bytes=64 * GIB))


def test_what_lies_on_a_gpu_does_not_have_to_fit_the_machines_memory():
    everything = ("train.completions_per_prompt=4", "learner.microbatch_tokens=1000000")
    host = Machine(cpus=8, gpus=1, memory_bytes=4 * GIB)
    with pytest.raises(CannotFit):
        made(*everything, machine=host)
    made(*everything, "learner.gpus=1", machine=host)


def test_fewer_cpus_than_reserved_are_fine_because_roles_take_turns():
    made("rollout.num_workers=4", machine=Machine(cpus=1, gpus=0, memory_bytes=64 * GIB))


def test_a_running_cluster_is_not_judged_by_this_machine():
    job: JobConfig = make_job(["runtime=ray", "ray.address=auto", "rollout.gpus=64"])
    planned = plan(job)
    assert planned.machine is None
    assert "a running Ray cluster" in planned.lines()[-1]


def test_a_plan_as_data_has_the_totals():
    planned = made("rollout.num_workers=2")
    data = planned.as_dict()
    assert (data["cpus"], data["gpus"]) == (planned.cpus, planned.gpus) == (4, 0)
    assert data["memory_bytes"] == planned.memory_bytes > sum(role.memory_bytes for role in planned.roles)


def test_a_model_that_is_none_is_named():
    with pytest.raises(ModelError, match="'no-such-model'"):
        made("model=no-such-model")


def test_here_is_a_machine():
    here = Machine.here()
    assert here.cpus >= 1
    assert here.memory_bytes > 0
