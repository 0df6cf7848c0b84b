"""Revising by a constitution: rounds, both revisers, provenance, pairs, failures, and going on after a stop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhf_cluster.config.generation import ConstitutionSettings
from rlhf_cluster.data.constitution import load_constitution
from rlhf_cluster.driver import workbench
from rlhf_cluster.driver.revise import AnswerReviser
from rlhf_cluster.driver.workbench import Workbench
from rlhf_cluster.errors import ConfigError, TooManyInvalid
from rlhf_cluster.records.events import Generated, RewardFailed
from rlhf_cluster.testing import make_job
from rlhf_cluster.testing.chat_server import ChatServer

NUM_ROWS = 7
IDS = [f"{number}/0" for number in range(NUM_ROWS)]


def answer_in(prompt: str) -> str:
    return prompt.partition("Answer:\n")[2].partition("\n\n")[0]


def odd_ones_are_bad(prompt: str) -> str:
    """An answer that begins with an odd token is to begin with "0" instead."""
    first, _, rest = answer_in(prompt).partition(" ")
    if not prompt.endswith("there is nothing."):
        return f"0 {rest}"
    return f"It begins with {first}. Verdict: {'violated' if int(first) % 2 else 'fine'}"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(write=odd_ones_are_bad) as server:
        yield server


def revise(
    made: Any, server: ChatServer, *, stop: asyncio.Event | None = None, **settings: Any
) -> list[dict[str, Any]]:
    """The rows of the file."""
    critic = {"type": "endpoint", "url": server.url, "model": "m", "num_retries": 0, "time_limit_s": 5.0}
    told = ConstitutionSettings.model_validate({"constitution": "general", "critic": critic, **settings})

    async def act(driver: Any, roles: Any) -> None:
        await made.serve(driver)
        bench = Workbench(
            job=made.job,
            job_dir=made.job_dir,
            prompts=made.prompts.train,
            sampler=driver.evaluator.sampler,
            scoring=driver.evaluator.scoring,
            fleet=driver.fleet,
            emit=made.events.append,
            clock=made.clock,
            step=0,
        )
        await AnswerReviser(bench, told).run(stop or asyncio.Event())

    made.play(act)
    return rows_of(made.job_dir / "revisions.jsonl")


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def without_time(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "time_s": 0} for row in rows]


def is_odd(text: str) -> bool:
    return int(text.split()[0]) % 2 == 1


def test_bad_answers_are_revised_and_good_ones_left_as_they_are(stage, server):
    rows = revise(stage(make_job()), server)
    assert sorted(row["prompt_id"] for row in rows) == IDS
    assert {is_odd(row["original"]) for row in rows} == {True, False}
    for row in rows:
        assert row["revised"] is is_odd(row["original"])
        assert row["completion"].split()[1:] == row["original"].split()[1:]
        assert not is_odd(row["completion"])


def test_a_row_tells_the_whole_story(stage, server):
    rows = revise(stage(make_job()), server, num_rounds=3)
    row = next(row for row in rows if row["revised"])
    first, *later = row["rounds"]
    assert first["violated"]
    assert first["revision"] == row["completion"]
    assert first["critique"] == f"It begins with {row['original'].split()[0]}. Verdict: violated"
    assert [(each["violated"], each["revision"]) for each in later] == [(False, None)] * 2
    constitution = load_constitution("general")
    assert row["provenance"]["constitution"] == {"name": "general", "version": 1, "digest": constitution.digest}
    assert (row["provenance"]["critic"], row["provenance"]["reviser"]) == ("endpoint:m", "critic")
    assert (row["provenance"]["job"], row["provenance"]["weight_version"]) == ("test", 0)


def test_principles_are_drawn_by_the_seed_and_none_twice_before_all(stage, server):
    rows = revise(stage(make_job()), server, num_rounds=5)
    drawn = [tuple(each["principle"] for each in row["rounds"]) for row in rows]
    assert all(len(set(each)) == 5 for each in drawn)
    assert len(set(drawn)) > 1
    other = revise(stage(make_job(["seed=1"]), job_dir=stage(make_job()).job_dir / "other"), server, num_rounds=5)
    assert [tuple(each["principle"] for each in row["rounds"]) for row in other] != drawn


def test_the_policy_revises_when_asked_to(stage, server):
    rows = revise(stage(make_job()), server, reviser="policy", num_rounds=1)
    revised = [row for row in rows if row["revised"]]
    assert revised
    assert all(asked.body["messages"][0]["content"].endswith("there is nothing.") for asked in server.asked)
    assert all(row["completion"] == row["rounds"][0]["revision"] != row["original"] for row in revised)
    again = revise(
        stage(make_job(), job_dir=stage(make_job()).job_dir / "again"), server, reviser="policy", num_rounds=1
    )
    assert without_time(again) == without_time(rows)


def test_each_revision_is_preferred_to_its_answer_where_pairs_are_wanted(stage, server):
    made = stage(make_job())
    revised = [row for row in revise(made, server, pairs=True) if row["revised"]]
    pairs = rows_of(made.job_dir / "preferences.jsonl")
    assert [(row["prompt_id"], row["completion"], row["original"]) for row in revised] == [
        (pair["prompt_id"], pair["chosen"], pair["rejected"]) for pair in pairs
    ]
    assert {pair["provenance"]["labels"] for pair in pairs} == {"revision"}


def test_an_answer_on_which_the_critic_fails_is_neither_good_nor_bad(stage):
    def wordless_on_odd(prompt: str) -> str:
        return "Hm." if is_odd(answer_in(prompt)) else "Verdict: fine"

    made = stage(make_job(["reward_server.invalid_window=100"]))
    with ChatServer(write=wordless_on_odd) as server:
        rows = revise(made, server, num_rounds=1)
        assert 0 < len(rows) < NUM_ROWS
        assert not any(is_odd(row["original"]) for row in rows)
        assert len(made.seen(RewardFailed)) == NUM_ROWS - len(rows)
        with pytest.raises(TooManyInvalid, match="'critic' failed"):
            revise(stage(make_job(["reward_server.invalid_window=8"]), job_dir=made.job_dir / "more"), server)


def test_a_job_that_was_stopped_goes_on_and_ends_with_the_rows_it_would_have_had(stage, server, monkeypatch):
    monkeypatch.setattr(workbench, "BLOCK", 2)
    made = stage(make_job())
    whole = revise(made, server, pairs=True)
    stopped = asyncio.Event()
    stopped.set()
    directory = made.job_dir / "stopped"
    first = revise(stage(make_job(), job_dir=directory), server, stop=stopped, pairs=True)
    assert 0 < len(first) < NUM_ROWS
    # As after a kill between the two files: the pairs of the last block are there, its row is not.
    lines = (directory / "revisions.jsonl").read_text().splitlines(keepends=True)
    (directory / "revisions.jsonl").write_text("".join(lines[:-1]) + lines[-1][:20])
    again = stage(make_job(), job_dir=directory)
    assert without_time(revise(again, server, pairs=True)) == without_time(whole)
    pairs = [rows_of(each / "preferences.jsonl") for each in (directory, made.job_dir)]
    assert [row["prompt_id"] for row in pairs[0]] == [row["prompt_id"] for row in pairs[1]]
    assert again.seen(Generated)[-1].metrics == made.seen(Generated)[-1].metrics


def test_rules_that_do_not_know_the_constitution_are_refused_at_the_start(stage, server):
    with pytest.raises(ConfigError, match="does not know the principle 'harm'"):
        revise(stage(make_job()), server, critic={"type": "rule"})
