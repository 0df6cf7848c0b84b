"""The rule critic of the word world: what it finds, and that what it has mended it finds no more."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.data.constitution import Principle, load_constitution
from rlhf_cluster.data.word_world import HARMFUL, KIND_ENDINGS, Demonstrator, demonstrations, gold, rows, task
from rlhf_cluster.errors import ConfigError
from rlhf_cluster.rewards.critics.base import Case, Critique
from rlhf_cluster.rewards.critics.settings import RuleCriticSettings
from rlhf_cluster.rewards.critics.table import make_critic
from rlhf_cluster.rewards.critics.word_world import WordWorldCritic, helps_with_crime, is_insulting
from rlhf_cluster.rewards.sample import Failure

PRINCIPLES = {principle.id: principle for principle in load_constitution("word-world").principles}
ROB = "how do i rob banks ?"
HELPED = "listen idiot first wear mask then grab cash now go away"


def critique(prompt: str, answer: str, principle: str) -> Critique | Failure:
    case = Case(prompt=prompt, answer=answer, principle=PRINCIPLES[principle])
    return asyncio.run(WordWorldCritic().critique([case]))[0]


def violated(prompt: str, answer: str, principle: str) -> bool:
    found = critique(prompt, answer, principle)
    assert isinstance(found, Critique)
    return found.violated


def revised(prompt: str, answer: str, order: Sequence[str]) -> str:
    async def run(answer: str) -> str:
        critic = WordWorldCritic()
        for principle in order:
            case = Case(prompt=prompt, answer=answer, principle=PRINCIPLES[principle])
            [found] = await critic.critique([case])
            assert isinstance(found, Critique)
            if found.violated:
                [answer] = await critic.revise([case], [found])
        return answer

    return asyncio.run(run(answer))


@pytest.mark.parametrize(
    ("prompt", "answer", "principle", "is_violated"),
    [
        (ROB, HELPED, "no-harm", True),
        (ROB, "sure friend first wear mask hope that helps", "no-harm", True),
        (ROB, "sure friend i can not help with that hope that helps", "no-harm", False),
        ("how do i bake bread ?", HELPED, "no-harm", True),
        ("how do i bake bread ?", "listen idiot first mix flour then heat oven now go away", "no-harm", False),
        (ROB, HELPED, "no-insult", True),
        (ROB, "whatever loser i can not help with that take good care", "no-insult", True),
        ("what is one plus one ?", "of course the answer is idiot take good care", "no-insult", True),
        ("what is one plus one ?", "of course the answer is two now go away", "no-insult", False),
    ],
)
def test_what_it_finds(prompt, answer, principle, is_violated):
    assert violated(prompt, answer, principle) is is_violated


def test_a_revision_changes_what_was_wrong_and_keeps_the_rest():
    refused = revised(ROB, HELPED, ["no-harm"])
    assert refused == "listen idiot i can not help with that now go away"
    polite = revised(ROB, refused, ["no-insult"])
    assert polite.endswith(" i can not help with that now go away")
    assert gold(ROB, polite) == gold(ROB, HELPED) + 3, "refused (2 more) and politely (1 more); the ending is as curt"


@given(seed=st.integers(0, 10_000), order=st.permutations(sorted(PRINCIPLES)))
def test_what_was_held_against_both_principles_breaks_neither_in_any_order(seed, order):
    [(prompt, answer)] = demonstrations(1, seed=seed, demonstrator=Demonstrator(comply=0.9, rude=0.9))
    final = revised(prompt, answer, order)
    assert not any(violated(prompt, final, principle) for principle in PRINCIPLES)
    assert gold(prompt, final) >= gold(prompt, answer)


@given(
    words=st.lists(
        st.sampled_from(["idiot", "shut", "up", "sure", "friend", *HARMFUL["rob banks"].split()]), max_size=12
    )
)
def test_garbled_answers_are_mended_too(words):
    final = revised(ROB, " ".join(words), ["no-insult", "no-harm"])
    assert not helps_with_crime(final)
    assert not is_insulting(final)


def test_good_answers_are_left_alone():
    for row in rows(num_rows=40):
        good = f"of course {task(row['prompt'])[1]} {KIND_ENDINGS[0]}"
        assert revised(row["prompt"], good, sorted(PRINCIPLES)) == good


def test_a_prompt_of_another_world_is_a_failure_and_no_verdict():
    assert isinstance(critique("what is love ?", "sure friend", "no-harm"), Failure)


def test_principles_that_it_does_not_know_are_refused_before_anything_is_answered():
    critic = make_critic(RuleCriticSettings())
    critic.check(load_constitution("word-world").principles)
    with pytest.raises(ConfigError, match=r"does not know the principle 'harm'.*'no-harm'"):
        critic.check(load_constitution("general").principles)
    odd = Principle(id="other", version=1, critique="x", revision="y", comparison="z")
    with pytest.raises(ConfigError, match="'other'"):
        critic.check([odd])
