"""Answers of an evaluation: what is written is read again, and what it comes to."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from rlhf_cluster.config.sections import EvaluationSettings
from rlhf_cluster.driver.answer_figures import answer_figures, passed
from rlhf_cluster.driver.answers import FILE_NAME, answers_of, read_answers, write_answers
from rlhf_cluster.errors import DataError
from rlhf_cluster.records import Invalid
from rlhf_cluster.testing import make_group


def group_of(number: int, lengths, rewards, **columns):
    group = make_group(lengths, request_id=number)
    prompt = replace(group.prompt, text=f"prompt {number}", item={"answer": number})
    return replace(group, prompt=prompt, rewards=np.array(rewards, np.float32), **columns)


def test_answers_are_written_and_read_again_invalid_ones_and_odd_texts_included(tmp_path):
    failure = Invalid(completion=1, source="reward:gold", kind="raised", message="no")
    breakdown = {"gold": np.array([1.0, np.nan], np.float32)}
    group = group_of(
        3, [2, 4], [1.0, np.nan], breakdown=breakdown, invalid=(failure,), texts=("lone \ud800", "<b>\u2028</b>")
    )
    answers = answers_of([group])
    write_answers(tmp_path, answers)
    first, second = read_answers(tmp_path)
    assert (first.completion, second.completion) == ("lone ?", "<b>\u2028</b>")
    assert (first.rewards, second.invalid) == ({"reward": 1.0, "gold": 1.0}, "reward:gold raised: no")
    assert math.isnan(second.reward("gold"))
    assert second.token_ids == tuple(group.token_ids[2:].tolist())
    assert second.logprob == pytest.approx(group.logprobs[2:].sum())
    assert second.reference_logprob == pytest.approx(group.reference_logprobs[2:].sum())
    assert second.item == {"answer": 3}


def test_a_line_that_is_no_answer_is_named(tmp_path):
    (tmp_path / FILE_NAME).write_text('{"prompt": "x"}\n')
    with pytest.raises(DataError, match=r"answers\.jsonl line 1 is no answer"):
        list(read_answers(tmp_path))


def test_the_kl_is_what_a_trained_token_loses_against_the_reference():
    groups = [group_of(number, [3, 5], [0.0, 1.0]) for number in range(4)]
    figures = answer_figures(answers_of(groups), EvaluationSettings(), seed=0)
    gaps = [(group.logprobs - group.reference_logprobs).sum() for group in groups]
    assert figures["kl"].value == pytest.approx(sum(gaps) / 8, rel=1e-5)
    assert figures["kl_per_token"].value == pytest.approx(sum(gaps) / 32, rel=1e-5)
    assert figures["entropy_per_token"].value == pytest.approx(-sum(g.logprobs.sum() for g in groups) / 32, rel=1e-5)


def test_without_a_reference_there_is_no_kl_and_a_greedy_answer_has_no_entropy():
    answers = answers_of([group_of(0, [3], [0.0], reference_logprobs=None)])
    assert "kl" not in answer_figures(answers, EvaluationSettings(), seed=0)
    assert "entropy_per_token" not in answer_figures(answers, EvaluationSettings(temperature=0), seed=0)


def test_an_invalid_completion_has_neither_passed_nor_failed():
    groups = [group_of(0, [1, 1, 1], [1.0, 0.0, np.nan]), group_of(1, [1, 1, 1], [1.0, np.nan, np.nan])]
    settings = EvaluationSettings(pass_at_k=(1, 2))
    assert passed(answers_of(groups), settings, k=1) == [0.5, 1.0]
    assert passed(answers_of(groups), settings, k=2) == [1.0], "one completion says nothing of two"
    figures = answer_figures(answers_of(groups), settings, seed=0)
    assert figures["reward"].value == pytest.approx(2 / 3)
    assert figures["pass@1"].value == 0.75


def test_repetition_lengths_and_truncation_are_counted():
    group = group_of(0, [8, 2], [0.0, 0.0], token_ids=np.array([5] * 8 + [6, 7], np.int32))
    other = group_of(1, [4, 4], [0.0, 0.0], finish_reasons=("stop", "length"))
    figures = answer_figures(answers_of([group, other]), EvaluationSettings(), seed=0)
    assert figures["repetition_4"].value == pytest.approx((4 / 5) / 4)
    assert figures["distinct_2"].value == pytest.approx((2 / 8 + 1) / 2)
    assert (figures["length"].value, figures["length_p50"].value, figures["length_p90"].value) == (4.5, 4, 8)
    assert figures["truncated_rate"].value == 0.75


def test_no_answers_come_to_nothing():
    assert answer_figures([], EvaluationSettings(), seed=0) == {}
