"""The virtual event loop: time jumps, everything of asyncio that waits is exact, and what can never end is named."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from rlhf_cluster.testing.virtual_time import EPOCH_S, Deadlock, TooLong, VirtualClock, run


def now_s() -> float:
    return asyncio.get_running_loop().time()


def test_a_day_of_sleep_takes_no_time():
    async def main() -> float:
        await asyncio.sleep(86_400 * 3)
        return now_s()

    started = time.monotonic()
    assert run(main()) == pytest.approx(86_400 * 3)
    assert time.monotonic() - started < 5


def test_timers_fire_in_order_and_on_time():
    seen: list[tuple[str, float]] = []

    async def one(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        seen.append((name, now_s()))

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for name, seconds in [("c", 3.0), ("a", 0.5), ("b", 2.0)]:
                group.create_task(one(name, seconds))

    run(main())
    assert seen == [("a", 0.5), ("b", 2.0), ("c", 3.0)]


def test_wait_for_and_timeout_end_at_their_bound():
    async def main() -> list[float]:
        ends = []
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 7.5)
        ends.append(now_s())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.5):
                await asyncio.sleep(100)
        ends.append(now_s())
        return ends

    assert run(main()) == [7.5, 10.0]


def test_gather_waits_for_the_longest():
    async def main() -> float:
        await asyncio.gather(*(asyncio.sleep(seconds) for seconds in (1, 5, 3)))
        return now_s()

    assert run(main()) == 5


def test_a_thread_is_not_one():
    async def main() -> tuple[int, float]:
        return await asyncio.to_thread(threading.get_ident), now_s()

    assert run(main()) == (threading.get_ident(), 0.0)


def test_what_a_thread_raises_arrives():
    async def main() -> None:
        await asyncio.to_thread(int, "no number")

    with pytest.raises(ValueError, match="no number"):
        run(main())


def test_others_get_a_turn_while_a_thread_would_work():
    order: list[str] = []

    async def other() -> None:
        order.append("other")

    async def main() -> None:
        task = asyncio.create_task(other())
        await asyncio.to_thread(order.append, "thread")
        order.append("answered")
        await task

    run(main())
    assert order == ["thread", "other", "answered"]


def test_a_deadlock_names_the_tasks_that_wait_and_where():
    async def never_answers() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        await asyncio.sleep(2)
        await asyncio.create_task(never_answers(), name="the lonely one")

    with pytest.raises(Deadlock) as caught:
        run(main())
    message = str(caught.value)
    assert "at 2 s" in message
    assert "2 tasks wait" in message
    assert "the lonely one" in message
    assert "never_answers line" in message
    assert "Event.wait" in message


def test_a_deadlock_is_raised_after_everything_was_cleaned_up():
    cleaned: list[str] = []

    async def main() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1)
            cleaned.append("yes")

    with pytest.raises(Deadlock):
        run(main())
    assert cleaned == ["yes"]


def test_what_takes_too_long_is_ended():
    async def main() -> None:
        for _ in range(1_000):
            await asyncio.sleep(1)

    with pytest.raises(TooLong, match="not done after 60 virtual seconds"):
        run(main(), until_s=60)


def test_what_spins_without_time_passing_is_ended():
    async def main() -> None:
        for _ in range(1_000_000):
            await asyncio.sleep(0)

    with pytest.raises(TooLong, match="spins"):
        run(main())


def test_a_clock_tells_the_time_of_the_loop_and_goes_on_from_run_to_run():
    clock = VirtualClock()

    async def main() -> float:
        await clock.sleep(5)
        return clock.time()

    assert run(main(), clock=clock) == EPOCH_S + 5
    assert run(main(), clock=clock) == EPOCH_S + 10
    assert clock.monotonic() == 10


def test_errors_of_the_main_coroutine_arrive():
    async def main() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run(main())
