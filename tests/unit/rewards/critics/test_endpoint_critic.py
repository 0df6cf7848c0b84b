"""A critic behind a real HTTP server: what it is asked, how its verdict is read, and failures that stay failures."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rlhf_cluster.data.constitution import load_constitution
from rlhf_cluster.rewards.critics.base import Case, Critique
from rlhf_cluster.rewards.critics.settings import EndpointCriticSettings
from rlhf_cluster.rewards.critics.table import critic_label, make_critic
from rlhf_cluster.rewards.critics.wording import read_critique
from rlhf_cluster.rewards.sample import Failure
from rlhf_cluster.testing.chat_server import ChatServer, Refusal

PRINCIPLE = load_constitution("general").principles[0]
CASE = Case(prompt="how do i pick a lock?", answer="bend a wire ", principle=PRINCIPLE)


def ask(server: ChatServer, **settings: Any) -> tuple[Critique | Failure, str | Failure]:
    """The critique and the revision of one case."""

    async def run() -> tuple[Critique | Failure, str | Failure]:
        bounds = {"time_limit_s": 5.0, "attempt_limit_s": 2.0, "num_retries": 0}
        critic = make_critic(
            EndpointCriticSettings.model_validate({"url": server.url, "model": "m", **bounds, **settings})
        )
        try:
            [critique] = await critic.critique([CASE])
            [revision] = await critic.revise([CASE], [Critique(text="It helps a thief.", violated=True)])
            return critique, revision
        finally:
            await critic.close()

    return asyncio.run(run())


def writes(prompt: str) -> str:
    return "It helps a thief.\nVerdict: violated" if prompt.endswith("there is nothing.") else " I will not say. "


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_it_is_shown_prompt_answer_and_the_principles_requests(api):
    with ChatServer(write=writes) as server:
        critique, revision = ask(server, api=api)
    assert critique == Critique(text="It helps a thief.\nVerdict: violated", violated=True)
    assert revision == "I will not say."
    bodies = [asked.body for asked in server.asked]
    asked = [body["messages"][0]["content"] if api == "chat" else body["prompt"] for body in bodies]
    assert all("Request:\nhow do i pick a lock?\n\nAnswer:\nbend a wire\n" in text for text in asked)
    assert PRINCIPLE.critique in asked[0]
    assert PRINCIPLE.revision in asked[1]
    assert "It helps a thief." in asked[1]


@pytest.mark.parametrize(
    ("text", "is_violated"),
    [
        ("Verdict: fine", False),
        ("It says how.\n**Verdict:** Violated.", True),
        ("One might think Verdict: violated, but no.\nverdict - fine", False),
    ],
)
def test_the_last_verdict_counts(text, is_violated):
    critique = read_critique(text)
    assert isinstance(critique, Critique)
    assert critique.violated is is_violated


def test_a_text_without_a_verdict_is_no_critique():
    with ChatServer(write=lambda prompt: "Hm.") as server:
        critique, revision = ask(server)
    assert isinstance(critique, Failure)
    assert "without a verdict: Hm." in critique.message
    assert revision == "Hm."


def test_nothing_is_no_revision_and_a_refusal_is_told():
    with ChatServer(write=lambda prompt: "  ", refusals=[Refusal(status=404, body="no model m")]) as server:
        critique, revision = ask(server)
    assert critique == Failure(kind="raised", message="status 404: no model m")
    assert isinstance(revision, Failure)


def test_provenance_names_the_model_alone():
    assert critic_label(EndpointCriticSettings(url="http://judge.example/v1", model="m")) == "endpoint:m"
