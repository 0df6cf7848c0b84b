"""From a file and overrides to a job: both formats, dotted keys, and a message for everything that is wrong."""

from __future__ import annotations

import json
import tomllib
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
import yaml

from rlhf_cluster.config import job_schema, load_job
from rlhf_cluster.config.load import MAX_FILE_BYTES, check, recipe_names
from rlhf_cluster.errors import ConfigError
from rlhf_cluster.testing import make_job

RECIPE = "word-world"


def refusal(*overrides: str, job: str | Path = RECIPE) -> str:
    with pytest.raises(ConfigError) as raised:
        load_job(job, overrides)
    return str(raised.value)


def test_toml_yaml_and_json_give_the_same_job(tmp_path):
    tree = tomllib.loads((resources.files("rlhf_cluster.recipes") / f"{RECIPE}.toml").read_text())
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(tree))
    (tmp_path / "job.json").write_text(json.dumps(tree))
    assert load_job(tmp_path / "job.yaml") == load_job(tmp_path / "job.json") == load_job(RECIPE)


@pytest.mark.parametrize("recipe", recipe_names())
def test_a_job_comes_back_from_its_own_json(tmp_path, recipe):
    job = load_job(recipe, ["rollout.engine.type=scripted", "algorithm.kl_coef=0.1", "learner.optimizer.lr=1e-6"])
    (tmp_path / "job.json").write_text(job.model_dump_json(indent=2))
    assert load_job(tmp_path / "job.json") == job


def test_overrides_reach_tables_lists_and_what_the_file_leaves_out():
    job = load_job(
        RECIPE,
        [
            "train.num_steps=5",
            "learner.optimizer.lr=1e-4",
            "rollout.engine.type=scripted",
            "rollout.engine.token_s=0.5",
            "rewards.0.weight=0.25",
            'observers=["journal"]',
            "description=a plain sentence, not TOML",
            "data.shuffle=false",
            "model=~/models/mine",
        ],
    )
    assert (job.train.num_steps, job.learner.optimizer.lr, job.rollout.engine.token_s) == (5, 1e-4, 0.5)
    assert (job.rewards[0].weight, job.observers, job.data.shuffle) == (0.25, ("journal",), False)
    assert (job.description, job.model) == ("a plain sentence, not TOML", "~/models/mine")


def test_a_later_override_wins():
    assert load_job(RECIPE, ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.num_steps", "is not of the form key=value"),
        ("=5", "is not of the form key=value"),
        ("rewards.1.weight=2", "'1' is no index of a list of 1"),
        ("rewards.first.weight=2", "'first' is no index of a list of 1"),
        ("name.first=x", "name is the value 'word-world', not a table"),
    ],
)
def test_an_override_that_leads_nowhere_is_quoted(override, says):
    message = refusal(override)
    assert repr(override) in message
    assert says in message


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.num_step=3", "train.num_step: unknown key (did you mean 'num_steps'?)"),
        ("trian={}", "trian: unknown key (did you mean 'train'?)"),
        ("algorithm.clip_hihg=2", "algorithm.clip_hihg: unknown key (did you mean 'clip_high'?)"),
        ("rewards.0.wieght=1", "rewards.0.wieght: unknown key (did you mean 'weight'?)"),
        ("data.train.sed=1", "data.train.sed: unknown key (did you mean 'seed'?)"),
        (
            'data.train={type="mixture", parts=[{name="a", weigth=1, source={type="jsonl", path="a.jsonl"}}]}',
            "data.train.parts.0.weigth: unknown key (did you mean 'weight'?)",
        ),
        ("learner.optimizer.qqq=1", "learner.optimizer.qqq: unknown key; known: betas, eps, lr"),
    ],
)
def test_an_unknown_key_is_named_as_it_was_written_with_the_nearest_known_one(override, says):
    assert says in refusal(override)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("rollout.engine.type=vlm", "rollout.engine.type = 'vlm' (did you mean 'vllm'?): it is one of 'vllm'"),
        (
            'data.train={path="prompts.jsonl"}',
            "data.train.type: missing; it is one of 'jsonl', 'parquet', 'dataset', 'procedural', 'mixture'",
        ),
        (
            'data.train={type="mixture", parts=[{name="a", source={path="a.jsonl"}}]}',
            "data.train.parts.0.source.type: missing; it is one of 'jsonl', 'parquet', 'dataset', 'procedural'",
        ),
        ("data.train.type=jsnl", "data.train.type = 'jsnl' (did you mean 'jsonl'?)"),
        ("algorithm.type=grpoo", "algorithm type 'grpoo' is unknown (did you mean 'grpo'?)"),
        ("algorithm=grpo", "algorithm"),
        ("rewards.0.function=vadr", "rewards.0.function: no built-in reward is called 'vadr' (did you mean 'vader'?)"),
        ("runtime=slurm", "runtime = 'slurm': input should be 'local' or 'ray'"),
        ("train.num_steps=two", "train.num_steps = 'two': input should be a valid integer"),
        ("train.num_steps=-1", "train.num_steps = -1: input should be greater than or equal to 0"),
        ("name=Bad Name", "name = 'Bad Name'"),
        ("train=3", "train = 3"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(override, says):
    assert says in refusal(override)


@pytest.mark.parametrize("key", ["learner.optimizer.lr", "algorithm.clip_high", "rewards.0.weight", "limits.start_s"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_numbers_that_are_none_are_refused_everywhere(key, value):
    assert f"{key} = {value}: input should be a finite number" in refusal(f"{key}={value}")


def test_every_problem_is_told_at_once():
    message = refusal("train.num_step=3", "seed=-1", "runtime=slurm")
    assert message.splitlines()[0] == f"{RECIPE}:"
    assert len(message.splitlines()) == 4


def test_a_missing_section_is_named(tmp_path):
    (tmp_path / "job.toml").write_text('name = "empty"\n')
    message = refusal(job=tmp_path / "job.toml")
    assert "model: missing, and it has no default" in message
    assert "data: missing, and it has no default" in message


def test_a_huge_value_does_not_make_a_huge_message():
    assert len(refusal(f"seed={'x' * 10_000}")) < 500


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("job.toml", b"name = ", "not readable as TOML"),
        ("job.yaml", b"a: [1", "not readable as YAML"),
        ("job.toml", b"\xff\xfe\x00", "not readable as TOML"),
        ("job.yaml", b"- 1\n", "holds list, a job file is a table of settings"),
        ("job.yaml", b"", "holds NoneType"),
        ("job.toml", b"#" * (MAX_FILE_BYTES + 1), f"a job file has at most {MAX_FILE_BYTES}"),
    ],
)
def test_a_file_that_is_no_job_is_named(tmp_path, name, content, says):
    path = tmp_path / name
    path.write_bytes(content)
    message = refusal(job=path)
    assert message.startswith(f"{path}: ")
    assert says in message


def test_yaml_that_asks_for_python_objects_is_refused(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("name: !!python/object/apply:os.system ['true']\n")
    assert "not readable as YAML" in refusal(job=path)


def test_a_job_that_does_not_exist_is_told_with_the_nearest_recipe():
    assert "did you mean 'word-world'?" in refusal(job="word-wrld")


@pytest.mark.parametrize("recipe", recipe_names())
def test_recipes_and_whole_jobs_are_valid_against_the_schema(recipe):
    schema = job_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(tomllib.loads((resources.files("rlhf_cluster.recipes") / f"{recipe}.toml").read_text()))
    validator.validate(json.loads(load_job(recipe).model_dump_json()))


def test_the_schema_refuses_an_unknown_key():
    tree = json.loads(make_job().model_dump_json()) | {"trian": {}}
    with pytest.raises(jsonschema.ValidationError, match="trian"):
        jsonschema.validate(tree, job_schema())


def test_a_short_yaml_file_that_means_an_endless_one_is_refused(tmp_path):
    path = tmp_path / "job.yaml"
    for each in ("{{x: *a{0}, y: *a{0}}}", "[*a{0}, *a{0}]", "{{<<: [*a{0}, *a{0}]}}"):
        lines = ["a0: &a0 {k: v}", *(f"a{n + 1}: &a{n + 1} {each.format(n)}" for n in range(60))]
        path.write_text("\n".join(lines))
        assert "has more than 100000 values" in refusal(job=path)
    path.write_text("a: &a [*a]")
    assert "not readable as YAML" in refusal(job=path)


def test_numbers_that_python_does_not_read_are_refused(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text("seed = " + "9" * 5000)
    assert "not readable as TOML" in refusal(job=path)
    assert "seed" in refusal("seed=" + "9" * 5000)
    assert "no index" in refusal("rewards.²=1")


def test_an_algorithm_of_ones_own_can_be_checked_without_running_its_code(tmp_path, monkeypatch):
    (tmp_path / "sets_a_trap.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    tree = load_job(RECIPE).model_dump(mode="json") | {"algorithm": {"type": "sets_a_trap:Mine", "strength": 2}}
    job = check(tree, source="job", runs_outside_code=False)
    assert job.model_dump(mode="json")["algorithm"] == tree["algorithm"]
    with pytest.raises(ConfigError, match="seed"):
        check(tree | {"seed": -1}, source="job", runs_outside_code=False)
