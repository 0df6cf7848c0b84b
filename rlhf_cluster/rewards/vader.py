"""Sentiment of the completion by VADER's lexicon and rules (Hutto and Gilbert, ICWSM 2014); needs `vaderSentiment`."""

from __future__ import annotations

from functools import cache
from typing import Any

from rlhf_cluster.rewards.sample import RewardSample


def vader(sample: RewardSample, *, whole_text: bool = False) -> float:
    """The compound score in [-1, 1]: most negative to most positive. `whole_text` also reads the prompt."""
    text = sample.prompt + sample.completion if whole_text else sample.completion
    return _analyzer().polarity_scores(text)["compound"]


@cache
def _analyzer() -> Any:
    # Reading the lexicon takes a quarter of a second: once a process.
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()
