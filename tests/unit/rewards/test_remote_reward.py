"""A remote reward against a real server that answers in every wrong way."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from contextlib import asynccontextmanager

import numpy as np
import pytest
from aiohttp import web

from rlhf_cluster.errors import ConfigError
from rlhf_cluster.rewards.http import RemoteReward
from rlhf_cluster.rewards.sample import Failure, RewardSample
from rlhf_cluster.rewards.settings import HttpReward


class Judge:
    """Gives each completion its number; before that, one of `answers` a request, until they are used up."""

    def __init__(self, *answers) -> None:
        self.answers = list(answers)
        self.requests: list[dict] = []
        self.headers: list[Mapping[str, str]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(await request.json())
        self.headers.append(request.headers)
        if self.answers:
            answer = self.answers.pop(0)
            return await answer(request) if callable(answer) else answer
        return web.json_response({"rewards": [float(sample["completion"]) for sample in self.requests[-1]["samples"]]})


async def hang(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(5)
    return web.Response()


async def drip(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(100):
        await response.write(b" ")
        await asyncio.sleep(0.05)
    return response


async def hang_up(request: web.Request) -> web.StreamResponse:
    request.transport.close()
    return web.Response()


@asynccontextmanager
async def serving(judge: Judge):
    app = web.Application()
    app.router.add_post("/score", judge.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/score"
    finally:
        await runner.cleanup()


def sample(completion: str = "1", **item) -> RewardSample:
    return RewardSample(prompt="p", completion=completion, finish_reason="stop", num_tokens=2, item=item)


def score(judge: Judge, samples: list[RewardSample], **settings):
    async def run():
        async with serving(judge) as url:
            bounds = {"time_limit_s": 5.0, "attempt_limit_s": 0.4, "backoff_s": 0.01} | settings
            reward = RemoteReward(HttpReward(url=url, **bounds), rng=random.Random(0))
            try:
                return await reward.score(samples)
            finally:
                await reward.close()

    return asyncio.run(run())


def failure(judge: Judge, **settings) -> Failure:
    """Of two samples that fail alike."""
    first, second = score(judge, [sample(), sample()], **settings)
    assert first == second
    assert isinstance(first, Failure)
    return first


def status(code: int, text: str = "") -> web.Response:
    return web.Response(status=code, text=text)


def test_samples_travel_in_batches_with_their_rows_and_come_back_in_order():
    judge = Judge()
    rewards = score(judge, [sample(str(i), answer=np.int64(i), ids=np.arange(2)) for i in range(5)], batch_size=2)
    assert rewards == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert sorted(len(request["samples"]) for request in judge.requests) == [1, 2, 2]
    expected = {"prompt": "p", "completion": "0", "finish_reason": "stop", "num_tokens": 2}
    first = next(request["samples"][0] for request in judge.requests if request["samples"][0]["completion"] == "0")
    assert first == {**expected, "item": {"answer": 0, "ids": [0, 1]}}


@pytest.mark.parametrize("trouble", [status(500), status(503), status(429), status(408), hang, hang_up, drip])
def test_passing_trouble_is_tried_again_as_the_same_request(trouble):
    judge = Judge(trouble)
    assert score(judge, [sample("7")]) == [7.0]
    first, second = judge.headers
    assert first["idempotency-key"] == second["idempotency-key"]


def test_lasting_trouble_is_unavailable_and_says_how_often_it_was_tried():
    judge = Judge(*[status(502, "bad gateway") for _ in range(3)])
    found = failure(judge, num_retries=2)
    assert found.kind == "unavailable"
    assert "status 502: bad gateway (gave up after 3 attempts)" in found.message
    assert len(judge.requests) == 3


def test_hanging_servers_are_given_up_at_the_time_limit():
    found = failure(Judge(hang, hang, hang, hang), time_limit_s=0.6)
    assert found.kind == "timed_out"
    assert "gave up after 0.6 s" in found.message


def test_a_server_that_is_not_there_is_unavailable():
    async def run():
        async with serving(Judge()) as url:
            pass
        reward = RemoteReward(HttpReward(url=url, num_retries=1, backoff_s=0))
        try:
            return await reward.score([sample()])
        finally:
            await reward.close()

    assert asyncio.run(run())[0].kind == "unavailable"


@pytest.mark.parametrize("code", [400, 401, 404, 422])
def test_a_refusal_is_final_and_quotes_the_server(code):
    judge = Judge(status(code, "no such model"))
    found = failure(judge)
    assert (found.kind, found.message) == ("raised", f"status {code}: no such model")
    assert len(judge.requests) == 1


def test_redirects_are_not_followed():
    found = failure(Judge(web.Response(status=307, headers={"location": "/score"})))
    assert found.kind == "raised"
    assert "set `url`" in found.message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"rewards": [1.0]}', "1 rewards for 2 samples"),
        ('{"rewards": [1.0, 2.0, 3.0]}', "3 rewards for 2 samples"),
        ('{"rewards": 1.0}', "no object with a list `rewards`"),
        ('{"scores": [1.0, 2.0]}', "no object with a list `rewards`"),
        ("[1.0, 2.0]", "no object with a list `rewards`"),
        ("<html>ok</html>", "<html>ok</html>"),
        ("", "no object with a list `rewards`"),
        ("[" * 100_000, "no object with a list `rewards`"),
        ("\xff\xfe", "no object with a list `rewards`"),
    ],
)
def test_an_answer_of_another_shape_is_not_a_number(body, message):
    found = failure(Judge(web.Response(body=body.encode("latin-1"))))
    assert found.kind == "not_a_number"
    assert message in found.message


def test_single_bad_rewards_spoil_only_their_own_sample():
    values = [0.5, float("nan"), None, "1", float("inf"), True]
    outcomes = score(Judge(web.Response(text=json.dumps({"rewards": values}))), [sample()] * 6)
    assert outcomes[0] == 0.5
    assert [outcome.kind for outcome in outcomes[1:5]] == ["not_a_number"] * 4
    assert outcomes[5] == 1.0


def test_an_answer_without_end_is_refused():
    found = failure(Judge(web.Response(body=b" " * 10_000)), max_body_bytes=1000)
    assert found.kind == "not_a_number"
    assert "max_body_bytes = 1000" in found.message


def test_a_row_that_json_cannot_hold_fails_before_it_is_sent():
    judge = Judge()
    assert [outcome.kind for outcome in score(judge, [sample("1", table={(1, 2): 3})])] == ["raised"]
    assert judge.requests == []


def test_secrets_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("JUDGE_TOKEN", "secret")
    judge = Judge()
    score(judge, [sample()], headers={"authorization": "env:JUDGE_TOKEN", "x-team": "red"})
    assert (judge.headers[0]["authorization"], judge.headers[0]["x-team"]) == ("secret", "red")
    monkeypatch.delenv("JUDGE_TOKEN")
    with pytest.raises(ConfigError, match=r"'authorization'.*'JUDGE_TOKEN'"):
        RemoteReward(HttpReward(url="http://judge.example", headers={"authorization": "env:JUDGE_TOKEN"}))
