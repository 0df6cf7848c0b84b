"""The compute thread: order, what `status` says meanwhile, giving up, closing."""

from __future__ import annotations

import asyncio
import threading

import pytest

from rlhf_cluster.compute_thread import ComputeThread
from rlhf_cluster.errors import RoleError


def on_thread(story):
    """Run `story(thread)` on an event loop, and close the thread at its end."""

    async def told():
        thread = ComputeThread("scorer-0", role="reference scorer")
        try:
            return await story(thread)
        finally:
            await thread.close()

    return asyncio.run(told())


class Hold:
    """A call that begins, says so, and goes on until it is let go."""

    def __init__(self) -> None:
        self._began = threading.Event()
        self._may_end = threading.Event()

    def __call__(self) -> str:
        self._began.set()
        assert self._may_end.wait(timeout=30)
        return "held"

    async def began(self) -> None:
        assert await asyncio.to_thread(self._began.wait, 30)

    def let_go(self) -> None:
        self._may_end.set()


def test_status_says_what_is_running_and_what_waits():
    async def story(thread: ComputeThread):
        hold = Hold()
        calls = [asyncio.create_task(thread.run("scoring 2 groups", hold))]
        await hold.began()
        calls.append(asyncio.create_task(thread.run("scoring 9 groups", lambda: None)))
        await asyncio.sleep(0)
        during = thread.status(ready=True)
        hold.let_go()
        await asyncio.gather(*calls)
        return during, thread.status(ready=True, version=3, tokens_total=40)

    during, after = on_thread(story)
    assert (during.state, during.activity, during.num_in_flight) == ("busy", "scoring 2 groups", 2)
    assert (after.state, after.activity, after.num_in_flight) == ("idle", "idle", 0)
    assert (after.role, after.worker_id, after.version, after.tokens_total) == ("reference scorer", "scorer-0", 3, 40)
    assert after.busy_s >= during.busy_s > 0


def test_a_role_without_its_model_is_starting_whatever_it_does():
    async def story(thread: ComputeThread):
        before = thread.status(ready=False)
        hold = Hold()
        loading = asyncio.create_task(thread.run("loading the model", hold))
        await hold.began()
        during = thread.status(ready=False)
        hold.let_go()
        await loading
        return before, during

    before, during = on_thread(story)
    assert (before.state, before.activity) == ("starting", "starting")
    assert (during.state, during.activity) == ("starting", "loading the model")


def test_an_error_is_the_callers_and_the_thread_goes_on():
    async def story(thread: ComputeThread):
        with pytest.raises(ZeroDivisionError):
            await thread.run("dividing", lambda: 1 / 0)
        return await thread.run("dividing", lambda: 4 / 2), thread.status(ready=True).num_in_flight

    assert on_thread(story) == (2, 0)


def test_a_caller_that_gives_up_takes_its_call_out_of_the_queue():
    async def story(thread: ComputeThread):
        hold, ran = Hold(), []
        first = asyncio.create_task(thread.run("holding", hold))
        await hold.began()
        second = asyncio.create_task(thread.run("never", lambda: ran.append("second")))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        hold.let_go()
        await first
        await thread.run("looking", lambda: ran.append("third"))
        return ran

    assert on_thread(story) == ["third"]


def test_closing_lets_calls_end_runs_the_last_one_and_refuses_more():
    async def story(thread: ComputeThread):
        hold, freed = Hold(), []
        under_way = asyncio.create_task(thread.run("holding", hold))
        await hold.began()
        closing = asyncio.create_task(thread.close(lambda: freed.append("model")))
        await asyncio.sleep(0)
        with pytest.raises(RoleError, match="reference scorer scorer-0 is closed") as refused:
            await thread.run("scoring", lambda: None)
        assert refused.value.activity == "scoring"
        assert freed == []
        hold.let_go()
        await closing
        await thread.close(lambda: freed.append("twice"))
        return await under_way, freed, thread.status(ready=True).state

    assert on_thread(story) == ("held", ["model"], "closed")


def test_closing_with_nothing_to_free_waits_for_nothing():
    async def story(thread: ComputeThread):
        hold = Hold()
        under_way = asyncio.create_task(thread.run("holding", hold))
        await hold.began()
        await thread.close()
        assert not under_way.done()
        hold.let_go()
        return await under_way

    assert on_thread(story) == "held"
