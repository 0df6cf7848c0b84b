"""A judge behind a real HTTP server: letters, both orders, principles in the question; failures stay failures."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rlhf_cluster.data.constitution import load_constitution
from rlhf_cluster.errors import ConfigError
from rlhf_cluster.rewards.judges.base import Comparison, Judgement, Verdict
from rlhf_cluster.rewards.judges.settings import EndpointJudgeSettings
from rlhf_cluster.rewards.judges.table import judge_label, make_judge
from rlhf_cluster.rewards.sample import Failure, RewardSample
from rlhf_cluster.testing.chat_server import ChatServer, Refusal

BOUNDS = {"time_limit_s": 5.0, "attempt_limit_s": 2.0, "backoff_s": 0.01, "num_retries": 2}
KEY = "sk-test-0123456789"


def comparison(a: str, b: str, prompt: str = "say something") -> Comparison:
    def sample(text: str) -> RewardSample:
        return RewardSample(prompt=prompt, completion=text, finish_reason="stop", num_tokens=1)

    return Comparison(prompt=prompt, a=sample(a), b=sample(b))


def option(prompt: str, letter: str) -> str:
    return prompt.partition(f"Option {letter}:\n")[2].partition("\n\n")[0]


def likes_good(prompt: str) -> dict[str, float]:
    """Sure of whichever option is "good", and leaning to A where neither is."""
    if option(prompt, "A") == "good":
        return {"A": 0.9, "B": 0.1}
    if option(prompt, "B") == "good":
        return {"A": 0.1, "B": 0.9}
    return {"A": 0.8, "B": 0.2}


def compare(server: ChatServer, *pairs: Comparison, **settings: Any) -> list[Judgement]:
    async def run() -> list[Judgement]:
        judge = make_judge(
            EndpointJudgeSettings.model_validate({"url": server.url, "model": "m", **BOUNDS, **settings})
        )
        try:
            await judge.start()
            return await judge.compare(pairs)
        finally:
            await judge.close()

    return asyncio.run(run())


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_the_better_one_is_found_in_either_place(api):
    with ChatServer(first_token=likes_good) as server:
        first, second = compare(server, comparison("good", "bad"), comparison("bad", "good"), api=api)
    assert isinstance(first, Verdict)
    assert isinstance(second, Verdict)
    assert (first.p_a, second.p_a) == (pytest.approx(0.9), pytest.approx(0.1))
    assert len(server.asked) == 4, "each pair in both orders"
    assert {asked.path for asked in server.asked} == {f"/v1/{'chat/' if api == 'chat' else ''}completions"}


def test_a_judge_that_leans_to_the_first_option_is_undecided_and_its_bias_is_told():
    with ChatServer(first_token=likes_good) as server:
        [verdict] = compare(server, comparison("bad", "worse"))
    assert isinstance(verdict, Verdict)
    assert verdict.p_a == pytest.approx(0.5)
    assert verdict.position_bias == pytest.approx(0.3)


def test_the_question_holds_the_principles_of_the_constitution():
    with ChatServer() as server:
        compare(server, comparison("x", "y"), constitution="word-world")
    asked = server.asked[0].body["messages"][0]["content"]
    for principle in load_constitution("word-world").principles:
        assert principle.comparison in asked


def test_the_key_comes_from_the_environment_and_is_in_no_message(monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    refusal = Refusal(status=401, body=f"the key {KEY} is unknown")
    with ChatServer(refusals=[refusal] * 2) as server:
        [failure] = compare(server, comparison("x", "y"), api_key_env="MY_KEY")
    assert server.asked[0].authorization == f"Bearer {KEY}"
    assert isinstance(failure, Failure)
    assert failure.kind == "raised"
    assert "***" in failure.message
    assert KEY not in failure.message


@pytest.mark.parametrize("value", [None, "", "two\nlines"])
def test_a_key_that_is_not_there_or_is_none_is_said_at_once_without_its_value(monkeypatch, value):
    monkeypatch.delenv("MY_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("MY_KEY", value)
    settings = EndpointJudgeSettings(url="http://127.0.0.1:1/v1", model="m", api_key_env="MY_KEY")
    with pytest.raises(ConfigError, match="'MY_KEY'") as caught:
        make_judge(settings)
    assert "two" not in str(caught.value)


def test_a_busy_service_is_asked_again():
    busy = Refusal(status=503)
    with ChatServer(first_token=likes_good, refusals=[busy, busy, Refusal(status=429)]) as server:
        [verdict] = compare(server, comparison("good", "bad"), num_concurrent=1, num_retries=3)
    assert isinstance(verdict, Verdict)
    assert len(server.asked) == 5


def test_a_service_that_stays_away_is_a_failure_and_no_preference():
    with ChatServer() as server:
        url = server.url
    [failure] = compare(server, comparison("good", "bad"), url=url, num_retries=1)
    assert isinstance(failure, Failure)
    assert failure.kind == "unavailable"


@pytest.mark.parametrize(
    "body",
    [
        "[]",
        "{",
        '{"choices": []}',
        '{"choices": [{"message": {"content": "A"}}]}',
        '{"choices": [{"logprobs": null}]}',
        '{"choices": [{"logprobs": {"content": []}}]}',
        '{"choices": [{"logprobs": {"content": [{"top_logprobs": []}]}}]}',
        '{"choices": [{"logprobs": {"content": [{"top_logprobs": [{"token": "A", "logprob": NaN}]}]}}]}',
        '{"choices": [{"logprobs": {"content": [{"top_logprobs": [{"token": "A", "logprob": "high"}]}]}}]}',
    ],
)
def test_an_answer_of_the_wrong_form_is_a_failure(body):
    with ChatServer(refusals=[Refusal(status=200, body=body)] * 2) as server:
        [failure] = compare(server, comparison("good", "bad"))
    assert isinstance(failure, Failure)
    assert failure.kind == "not_a_number"


def test_provenance_names_the_model_and_neither_address_nor_key():
    settings = EndpointJudgeSettings(url="https://judge.example/v1/", model="m", api_key_env="MY_KEY")
    assert settings.url == "https://judge.example/v1"
    assert judge_label(settings) == "endpoint:m"
