"""Several ranks that look like one learner: all are asked, rank 0 answers, the first failure is raised."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest

from rlhf_cluster.errors import LearnerError
from rlhf_cluster.learner.group import LearnerGroup
from rlhf_cluster.records import Batch
from rlhf_cluster.testing import FakeLearnerRank

BATCH = Batch(step=0, groups=())


class Rank(FakeLearnerRank):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    async def rendezvous(self) -> str:
        return f"tcp://rank-{self.number}:29500"

    async def start(self, meeting_point) -> None:
        self.calls.append(f"start {meeting_point}")

    async def publish(self):
        handle = await super().publish()
        return handle if self.number == 0 else None

    async def publish_full(self):
        self.calls.append("publish_full")
        return await super().publish()


class Failing(Rank):
    async def update(self, algorithm, batch):
        raise LearnerError(f"rank {self.number}: the loss is nan")


class Waiting(Rank):
    """Stuck in a collective, as ranks are when another has failed."""

    async def update(self, algorithm, batch):
        await asyncio.Event().wait()


def test_every_rank_takes_part_and_rank_zero_answers():
    ranks = [Rank(number) for number in range(3)]
    group = LearnerGroup(ranks)

    async def step():
        return await group.update(None, BATCH), await group.publish()

    report, handle = asyncio.run(step())
    assert report.version == handle.version == 1
    assert [rank.calls for rank in ranks] == [["update", "publish"]] * 3


def test_every_rank_gets_the_head_of_a_batch():
    ranks = [Rank(number) for number in range(3)]
    asyncio.run(LearnerGroup(ranks).accumulate(None, BATCH.groups, step=4))
    assert [rank.heads for rank in ranks] == [[(4, 0)]] * 3


def test_only_rank_zero_is_asked_for_a_whole_version():
    ranks = [Rank(number) for number in range(2)]
    assert asyncio.run(LearnerGroup(ranks).publish_full()).location is not None
    assert [rank.calls for rank in ranks] == [["publish_full", "publish"], []]


def test_ranks_meet_where_rank_zero_says_and_a_single_rank_meets_nobody():
    ranks = [Rank(number) for number in range(2)]
    asyncio.run(LearnerGroup(ranks).start())
    assert [rank.calls for rank in ranks] == [["start tcp://rank-0:29500"]] * 2
    alone = Rank(0)
    asyncio.run(LearnerGroup([alone]).start())
    assert alone.calls == ["start None"]


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_the_first_failure_is_raised_while_the_others_are_stuck(failing):
    ranks = [Failing(number) if number == failing else Waiting(number) for number in range(3)]
    with pytest.raises(LearnerError, match=f"rank {failing}: the loss is nan"):
        asyncio.run(asyncio.wait_for(LearnerGroup(ranks).update(None, BATCH), 10))


def test_closing_closes_every_rank():
    ranks = [Rank(number) for number in range(2)]
    asyncio.run(LearnerGroup(ranks).close())
    assert [rank.calls for rank in ranks] == [["close"]] * 2


def test_a_save_keeps_its_place_before_an_update_though_it_is_awaited_later():
    ranks = [Rank(number) for number in range(2)]
    group = LearnerGroup(ranks)

    async def step(path):
        path.mkdir()
        saving = group.save(path)
        await group.update(None, BATCH)
        await saving

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(step(Path(directory) / "saved"))
    assert [rank.calls for rank in ranks] == [["save", "update"]] * 2


def test_killing_ends_every_rank_at_once_and_closes_those_that_cannot_be_killed():
    class Remote(Rank):
        def kill(self) -> None:
            self.calls.append("kill")

    class Broken(Rank):
        async def close(self) -> None:
            self.calls.append("close")
            raise LearnerError("it hangs in a collective")

    ranks = [Remote(0), Broken(1), Rank(2)]
    asyncio.run(LearnerGroup(ranks).kill())
    assert [rank.calls for rank in ranks] == [["kill"], ["close"], ["close"]]
