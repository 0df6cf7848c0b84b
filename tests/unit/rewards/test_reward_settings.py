"""What a job file may say about rewards, and the messages for what it may not."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from rlhf_cluster.errors import ConfigError
from rlhf_cluster.rewards.settings import FunctionReward, HttpReward, ModelReward, RewardSettings, check_rewards

REWARD = TypeAdapter(RewardSettings)


@pytest.fixture(autouse=True)
def foreign_rewards_are_importable(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def test_a_reward_without_a_type_is_a_function():
    reward = REWARD.validate_python({"function": "vader", "weight": 0.5})
    assert reward == FunctionReward(function="vader", weight=0.5)
    assert pickle.loads(pickle.dumps(reward)) == reward


def test_the_other_types_are_chosen_by_name():
    assert isinstance(REWARD.validate_python({"type": "http", "url": "https://judge.example/score"}), HttpReward)
    assert isinstance(REWARD.validate_python({"type": "model", "path": "models/reward"}), ModelReward)
    with pytest.raises(ValidationError, match="'function' \\(also when left out\\), 'model' or 'http'"):
        REWARD.validate_python({"type": "sandbox"})


def test_json_schema_exists():
    assert {"FunctionReward", "HttpReward", "ModelReward"} <= set(REWARD.json_schema()["$defs"])


@pytest.mark.parametrize(
    ("reward", "label"),
    [
        (FunctionReward(function="vader"), "vader"),
        (FunctionReward(function="vader", name="sentiment"), "sentiment"),
        (FunctionReward(function="my.rewards:Judge.score"), "Judge.score"),
        (ModelReward(path="/models/reward model/"), "reward_model"),
        (HttpReward(url="https://judge.example:8080/score"), "judge.example"),
    ],
)
def test_a_reward_has_a_name_even_when_none_is_given(reward, label):
    assert reward.label == label


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"function": "vadre"}, "did you mean 'vader'"),
        ({"function": "nothing_like_it"}, "built in are exact_match, length"),
        ({"function": "my.rewards.judge"}, "package.module:attribute"),
        ({"function": "my rewards:judge"}, "package.module:attribute"),
        ({"function": "length", "args": {"goal": 3}}, "it takes .*target: "),
        ({"function": "length"}, "missing a required .*'target'"),
        ({"function": "vader", "time_limit_s": 0}, "greater than 0"),
        ({"function": "vader", "wieght": 1}, "wieght"),
        ({"function": "vader", "name": "two words"}, "name"),
        ({"type": "http", "url": "judge.example/score"}, "starts with http:// or https://"),
        ({"type": "http", "url": "https://judge.example:99999/"}, "Port out of range"),
    ],
)
def test_wrong_settings_are_refused_in_words(fields, message):
    with pytest.raises(ValidationError, match=message):
        REWARD.validate_python(fields)


def test_an_outside_function_is_imported_only_by_check():
    unknown = FunctionReward(function="package_that_is_not_there:judge")
    with pytest.raises(ConfigError, match=r"cannot import package_that_is_not_there.*PYTHONPATH"):
        unknown.check()
    FunctionReward(function="foreign_rewards:slow_judge", args={"wait_s": 0}).check()
    FunctionReward(function="foreign_rewards:Scaled", args={"factor": 2}).check()


@pytest.mark.parametrize(
    ("function", "args", "message"),
    [
        ("foreign_rewards:slow_juge", {}, "did you mean 'slow_judge'"),
        ("foreign_rewards:slow_judge", {"wait": 1}, "it takes .*wait_s"),
        ("foreign_rewards:Scaled", {}, "missing a required .*'factor'"),
        ("foreign_rewards:WithoutScore", {}, "no method `score"),
        ("foreign_rewards:not_callable", {}, "is a int, which cannot be called"),
    ],
)
def test_check_says_what_is_wrong_with_an_outside_function(function, args, message):
    with pytest.raises(ConfigError, match=message):
        FunctionReward(function=function, args=args).check()


def test_rewards_need_different_names_and_some_weight():
    vader = FunctionReward(function="vader")
    check_rewards([vader, FunctionReward(function="vader", name="again", weight=0)])
    with pytest.raises(ConfigError, match="2 rewards are called 'vader'"):
        check_rewards([vader, vader])
    with pytest.raises(ConfigError, match="no reward has a weight"):
        check_rewards([FunctionReward(function="vader", weight=0)])


def test_settings_import_nothing_heavy():
    heavy = "torch transformers ray vllm httpx pebble vaderSentiment reasoning_gym"
    code = (
        "import sys; from rlhf_cluster.rewards.settings import FunctionReward; FunctionReward(function='vader'); "
        f"print([name for name in '{heavy}'.split() if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
