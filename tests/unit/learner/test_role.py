"""A learner rank as a role: it tells its status while it computes, and ends cleanly."""

from __future__ import annotations

import asyncio
import threading
from typing import ClassVar

import numpy as np
import pytest

from rlhf_cluster.algorithms import GRPO
from rlhf_cluster.errors import LearnerError, ModelError
from rlhf_cluster.learner.role import LearnerRole
from rlhf_cluster.learner.settings import LearnerSettings
from rlhf_cluster.learner.spec import LearnerSpec
from rlhf_cluster.records import Batch
from rlhf_cluster.testing import make_group, save_tiny_model
from rlhf_cluster.weights.memory import MemoryTransport


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


def make_role(model_path) -> LearnerRole:
    spec = LearnerSpec(
        settings=LearnerSettings(precision="fp32"),
        model_path=model_path,
        temperature=1.0,
        num_steps=10,
        seed=0,
        serving_dtype="float32",
        probe_token_ids=np.arange(2, 10, dtype=np.int32),
        probe_tolerance=1e-3,
    )
    return LearnerRole(spec, rank=0, num_ranks=1, transport=MemoryTransport())


def with_role(model_path, act):
    async def whole():
        role = make_role(model_path)
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
