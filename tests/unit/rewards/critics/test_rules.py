"""Which rules a critic follows: a built-in name, or a class of another package, and what a wrong one is told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from pydantic import ValidationError

from rlhf_cluster.data.constitution import load_constitution
from rlhf_cluster.errors import ConfigError
from rlhf_cluster.rewards.critics.base import Case, Critique
from rlhf_cluster.rewards.critics.settings import RuleCriticSettings
from rlhf_cluster.rewards.critics.table import critic_label, make_critic


@pytest.fixture(autouse=True)
def _on_path(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)


def test_a_critic_of_another_package_criticises_and_revises():
    settings = RuleCriticSettings(name="foreign_critics:Shouting", args={"mark": "?!"})
    critic = make_critic(settings)
    case = Case(prompt="hello", answer="what?! no", principle=load_constitution("word-world").principles[0])
    [found] = asyncio.run(critic.critique([case]))
    assert isinstance(found, Critique)
    assert found.violated
    assert asyncio.run(critic.revise([case], [found])) == ["what no"]
    assert critic_label(settings) == "rule:foreign_critics:Shouting"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "no_such_critics:Any"}, "cannot import no_such_critics.*PYTHONPATH"),
        ({"name": "foreign_critics:Shuting"}, "did you mean 'Shouting'"),
        ({"name": "foreign_critics:Shouting", "args": {"marc": "!"}}, "'marc'; it takes .*mark"),
        ({"name": "foreign_critics:OnlyCritique"}, "no method check and no revise and no close"),
    ],
)
def test_a_wrong_one_is_told_when_the_job_starts(settings, words):
    with pytest.raises(ConfigError, match=words):
        make_critic(RuleCriticSettings(**settings))


@pytest.mark.parametrize(
    ("name", "words"), [("word_word", "did you mean 'word_world'"), ("a b:c", "'package.module:attribute'")]
)
def test_a_name_that_can_be_none_is_told_by_the_job_file(name, words):
    with pytest.raises(ValidationError, match=words):
        RuleCriticSettings(name=name)
