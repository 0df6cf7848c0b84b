import pytest

from rlhf_cluster.data.positive_reviews import rows
from rlhf_cluster.errors import DataError


def prompts(**settings):
    return [row["prompt"] for row in rows(**settings)]


def test_sixty_prompts_of_which_sixteen_are_held_out():
    assert len(prompts(split="train")) == 44
    assert len(prompts(split="eval")) == 16
    assert len({*prompts(split="train"), *prompts(split="eval")}) == 60


def test_the_seed_changes_the_order_and_not_the_split():
    assert prompts(seed=1) != prompts(seed=0)
    assert set(prompts(seed=1)) == set(prompts(seed=0))


def test_prompts_stop_before_the_judgement_and_without_a_space():
    for prompt in prompts(split="train") + prompts(split="eval"):
        assert prompt == prompt.strip()
        assert 6 <= len(prompt.split()) <= 12


def test_prompts_are_neutral_to_the_reward():
    analyzer = pytest.importorskip("vaderSentiment.vaderSentiment").SentimentIntensityAnalyzer()
    for prompt in prompts(split="train") + prompts(split="eval"):
        assert analyzer.polarity_scores(prompt)["compound"] == 0.0


def test_an_unknown_split_is_refused():
    with pytest.raises(DataError, match="use 'train' or 'eval'"):
        rows(split="test")
