"""A learner rank as a role: it tells its status while it computes, and ends cleanly."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from typing import ClassVar

import numpy as np
import pytest
from torch import distributed

from rlhf_cluster.algorithms import GRPO
from rlhf_cluster.errors import LearnerError, ModelError, StorageError
from rlhf_cluster.learner.role import LearnerRole
from rlhf_cluster.learner.settings import LearnerSettings
from rlhf_cluster.learner.spec import LearnerSpec
from rlhf_cluster.learner.state import generators_file
from rlhf_cluster.records import Batch
from rlhf_cluster.testing import make_group, save_tiny_model
from rlhf_cluster.weights.memory import MemoryTransport


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


def make_role(model_path, **settings) -> LearnerRole:
    spec = LearnerSpec(
        settings=LearnerSettings(precision="fp32", **settings),
        model_path=model_path,
        temperature=1.0,
        num_steps=10,
        seed=0,
        serving_dtype="float32",
        probe_token_ids=np.arange(2, 10, dtype=np.int32),
        probe_tolerance=1e-3,
    )
    return LearnerRole(spec, rank=0, num_ranks=1, transport=MemoryTransport())


def with_role(model_path, act, **settings):
    async def whole():
        role = make_role(model_path, **settings)
        await role.start(None)
        try:
            return await act(role)
        finally:
            await role.close()

    return asyncio.run(whole())


def batch(step: int = 0) -> Batch:
    return Batch(step=step, groups=(make_group([3, 5]),))


class Paused(GRPO):
    """Holds the learner's thread inside the loss until it is let go."""

    reached: threading.Event
    go_on: threading.Event
    model_config: ClassVar = {**GRPO.model_config, "arbitrary_types_allowed": True}

    def loss(self, columns):
        self.reached.set()
        assert self.go_on.wait(20)
        return super().loss(columns)


def test_an_update_waits_for_the_head_under_way_and_goes_on_from_it(model_path):
    async def act(role):
        algorithm = Paused(reached=threading.Event(), go_on=threading.Event())
        whole = Batch(step=0, groups=tuple(make_group([3, 5], request_id=n) for n in range(6)))
        head = asyncio.create_task(role.accumulate(algorithm, whole.groups[:5], step=0))
        await asyncio.to_thread(algorithm.reached.wait, 20)
        update = asyncio.create_task(role.update(algorithm, whole))
        during = await asyncio.wait_for(role.status(), 5)
        algorithm.go_on.set()
        await head
        return during, await update

    during, report = with_role(model_path, act, microbatch_tokens=32)
    assert (during.activity, during.num_in_flight) == ("learning 5 groups of step 0 early", 2)
    assert 0 < report.metrics["learner/early_share"] < 1


def test_status_answers_during_an_update_and_says_which(model_path):
    async def act(role):
        algorithm = Paused(reached=threading.Event(), go_on=threading.Event())
        update = asyncio.create_task(role.update(algorithm, batch()))
        await asyncio.to_thread(algorithm.reached.wait, 20)
        during = await asyncio.wait_for(role.status(), 5)
        algorithm.go_on.set()
        await update
        return during, await role.status()

    during, after = with_role(model_path, act)
    assert (during.state, during.activity, during.version) == ("busy", "updating on step 0", 0)
    assert (after.state, after.version, after.tokens_total) == ("idle", 1, 8)
    assert after.busy_s > 0


def test_the_newest_version_is_had_whole_during_an_update(model_path):
    async def act(role):
        published = await role.publish()
        algorithm = Paused(reached=threading.Event(), go_on=threading.Event())
        update = asyncio.create_task(role.update(algorithm, batch()))
        await asyncio.to_thread(algorithm.reached.wait, 20)
        whole = await asyncio.wait_for(role.publish_full(), 5)
        assert not update.done()
        algorithm.go_on.set()
        await update
        return published, whole

    published, whole = with_role(model_path, act)
    assert whole.manifest == published.manifest
    assert whole.location is not None


def test_a_refused_step_is_raised_as_it_is_and_the_role_goes_on(model_path):
    async def act(role):
        group = make_group([3, 5])
        group.advantages[:] = np.nan
        with pytest.raises(LearnerError, match="the step was not applied"):
            await role.update(GRPO(), Batch(step=0, groups=(group,)))
        assert (await role.status()).version == 0
        return await role.update(GRPO(), batch())

    assert with_role(model_path, act).version == 1


def test_a_saved_learner_goes_on_where_it_was(model_path, tmp_path):
    async def act(role):
        await role.update(GRPO(), batch(0))
        await role.save(tmp_path, with_state=True)
        return (await role.update(GRPO(), batch(1))).metrics, (await role.publish()).manifest

    async def again(role):
        await role.load(tmp_path)
        return (await role.update(GRPO(), batch(1))).metrics, (await role.publish()).manifest

    (metrics, manifest), (metrics_again, manifest_again) = with_role(model_path, act), with_role(model_path, again)
    assert manifest_again == manifest
    assert metrics_again["learner/loss"] == metrics["learner/loss"]


def test_tokens_are_counted_while_a_step_is_computed(model_path):
    async def act(role):
        algorithm = Paused(reached=threading.Event(), go_on=threading.Event())
        groups = tuple(make_group([9, 9], request_id=number) for number in range(4))
        update = asyncio.create_task(role.update(algorithm, Batch(step=0, groups=groups)))
        await asyncio.to_thread(algorithm.reached.wait, 20)
        counts = [(await role.status()).tokens_total]
        algorithm.go_on.set()
        while not update.done():
            counts.append((await role.status()).tokens_total)
            await asyncio.sleep(0)
        return counts, (await role.status()).tokens_total

    counts, total = with_role(model_path, act, microbatch_tokens=16)
    assert counts[0] == 0
    assert any(0 < count < 72 for count in counts)
    assert counts == sorted(counts)
    assert total == 72


def test_a_step_is_computed_while_a_save_is_still_writing_and_is_not_in_it(model_path, tmp_path):
    last_file = tmp_path / generators_file(0)
    os.mkfifo(last_file)  # the writer waits there until somebody reads

    async def act(role):
        await role.update(GRPO(), batch(0))
        saving = asyncio.create_task(role.save(tmp_path, with_state=True))
        await asyncio.sleep(0)
        report = await asyncio.wait_for(role.update(GRPO(), batch(1)), 60)
        still_writing = not saving.done()
        content = await asyncio.to_thread(last_file.read_bytes)
        await asyncio.wait_for(saving, 60)
        last_file.unlink()
        last_file.write_bytes(content)
        return report, still_writing

    async def again(role):
        await role.load(tmp_path)
        before = (await role.status()).version
        return before, await role.update(GRPO(), batch(1))

    report, still_writing = with_role(model_path, act)
    version, report_again = with_role(model_path, again)
    assert still_writing
    assert version == 1
    assert report_again.metrics["learner/loss"] == report.metrics["learner/loss"]
    assert report_again.metrics["learner/grad_norm"] == report.metrics["learner/grad_norm"]


def test_a_second_save_waits_for_the_first_and_keeps_its_place_in_the_order(model_path, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    os.mkfifo(first / generators_file(0))

    async def act(role):
        saving = [asyncio.create_task(role.save(path, with_state=True)) for path in (first, second)]
        await asyncio.sleep(0)
        update = asyncio.create_task(role.update(GRPO(), batch(0)))
        await asyncio.to_thread((first / generators_file(0)).read_bytes)
        await asyncio.wait_for(asyncio.gather(*saving, update), 60)

    async def again(role):
        await role.load(second)
        return (await role.status()).version

    with_role(model_path, act)
    assert with_role(model_path, again) == 0


def test_a_directory_that_is_gone_is_a_storage_error_and_the_role_goes_on(model_path, tmp_path):
    async def act(role):
        with pytest.raises(StorageError, match="gone could not be written: No such file or directory"):
            await role.save(tmp_path / "gone", with_state=True)
        await role.save(tmp_path, with_state=False)
        return await role.update(GRPO(), batch())

    assert with_role(model_path, act).version == 1


def test_status_before_and_after_its_life(model_path):
    async def whole():
        role = make_role(model_path)
        before = (await role.status()).state
        await role.start(None)
        await role.close()
        await role.close()
        return before, (await role.status()).state

    assert asyncio.run(whole()) == ("starting", "closed")


def test_a_directory_without_a_model_is_refused_at_the_start(tmp_path):
    with pytest.raises(ModelError, match=str(tmp_path)):
        asyncio.run(make_role(tmp_path).start(None))


def test_ranks_meet_at_an_address_of_this_machine(model_path):
    meeting_point = asyncio.run(make_role(model_path).rendezvous())
    assert meeting_point.startswith("tcp://")
    assert 0 < int(meeting_point.rpartition(":")[2]) < 65536


def test_the_network_is_gone_before_the_group_of_ranks_is_ended(model_path, monkeypatch):
    """A DDP reducer that goes after the group can hang for ever in its destructor, under the GIL."""
    alive = []

    async def act(role: LearnerRole) -> None:
        network = weakref.ref(role._learner.network)
        monkeypatch.setattr(distributed, "destroy_process_group", lambda: alive.append(network() is not None))
        role.num_ranks = 2

    with_role(model_path, act)
    assert alive == [False]
