"""What the relay makes of the service's answers, of a proxy's, and of silence."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from rlhf_cluster.relay.link import Link, Refused, Superseded, Unreachable
from rlhf_cluster.wire.relay import Answered, Ingest

from .stand_in import Said, StandIn, problem

NEWS = Ingest(first_entry=3, entries=[{"event": "Phase", "name": "half a pair: \ud800"}])
TAKEN = Said(200, {"num_entries": 4})


def ask(url: str, what: Callable[[Link], Awaitable[Any]], *, num_tries: int = 3) -> Any:
    async def whole() -> Any:
        async with Link(url, token="secret", num_tries=num_tries, backoff_s=0.001, timeout_s=10.0) as link:
            return await what(link)

    return asyncio.run(whole())


def test_it_sends_the_token_and_replaces_what_is_no_text(stand_in: StandIn):
    stand_in.says_in_turn(TAKEN)
    assert ask(stand_in.url, lambda link: link.ingest(NEWS)).num_entries == 4
    [asked] = stand_in.asked
    assert (asked.method, asked.path) == ("POST", "/api/v1/relay/ingest")
    assert asked.headers["Authorization"] == "Bearer secret"
    assert asked.json["entries"] == [{"event": "Phase", "name": "half a pair: ?"}]


@pytest.mark.parametrize(
    "trouble",
    [
        problem(503, "database_unavailable"),
        problem(500, "internal"),
        problem(429, "slow_down"),
        Said(502, b"<html>bad gateway</html>"),
        Said(404, b"<html>no such site</html>"),
        Said(302, b"", {"Location": "/login"}),
    ],
    ids=lambda said: f"{said.status}",
)
def test_trouble_that_may_pass_is_tried_again(stand_in: StandIn, trouble: Said):
    stand_in.says_in_turn(trouble, trouble, TAKEN)
    assert ask(stand_in.url, lambda link: link.ingest(NEWS)).num_entries == 4
    assert len(stand_in.asked) == 3


def test_trouble_that_stays_is_unreachable_after_a_bounded_number_of_tries(stand_in: StandIn):
    stand_in.says_in_turn(problem(503, "database_unavailable", "the disk is full"))
    with pytest.raises(Unreachable, match="in 3 tries: 503: the disk is full"):
        ask(stand_in.url, lambda link: link.ingest(NEWS))
    assert len(stand_in.asked) == 3


def test_nobody_there_is_unreachable():
    other = StandIn()
    other.close()
    with pytest.raises(Unreachable, match="could not be reached"):
        ask(other.url, lambda link: link.ingest(NEWS))


def test_an_answer_without_sense_is_unreachable(stand_in: StandIn):
    stand_in.says_in_turn(Said(200, b"<html>welcome</html>"))
    with pytest.raises(Unreachable, match="not as the service does"):
        ask(stand_in.url, lambda link: link.ingest(NEWS))


@pytest.mark.parametrize("said", [problem(409, "superseded"), problem(401, "unauthenticated")], ids=["409", "401"])
def test_the_services_own_word_that_the_attempt_is_over_is_final(stand_in: StandIn, said: Said):
    stand_in.says_in_turn(said)
    with pytest.raises(Superseded, match="because"):
        ask(stand_in.url, lambda link: link.ingest(NEWS))
    assert len(stand_in.asked) == 1


def test_a_proxy_that_wants_a_login_ends_no_attempt(stand_in: StandIn):
    stand_in.says_in_turn(Said(401, b"<html>log in</html>"))
    with pytest.raises(Unreachable):
        ask(stand_in.url, lambda link: link.ingest(NEWS))


def test_what_is_wrong_is_refused_and_not_sent_again(stand_in: StandIn):
    stand_in.says_in_turn(problem(422, "invalid_request", "view: field 'step' is missing"))
    with pytest.raises(Refused, match="field 'step' is missing"):
        ask(stand_in.url, lambda link: link.ingest(NEWS))
    assert len(stand_in.asked) == 1


def test_held_commands_are_named_and_an_answer_goes_to_its_command(stand_in: StandIn):
    stand_in.says_in_turn(Said(200, {"commands": []}), Said(204))
    ask(stand_in.url, lambda link: link.commands(held=["cmd_a", "cmd_b"], wait_s=1.0))
    ask(stand_in.url, lambda link: link.answer("cmd_a", Answered(ok=True, text="done")))
    assert [asked.path for asked in stand_in.asked] == [
        "/api/v1/relay/commands?wait=1.0&held=cmd_a&held=cmd_b",
        "/api/v1/relay/commands/cmd_a/answer",
    ]
