"""The simulated rollout worker keeps the promises of `roles.RolloutWorker`, by the second."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest
from fleet_stage import columns, groups_of, handle_of, now_s, request

from rlhf_cluster.errors import NeedsFullVersion, NotServing, RoleDied, StaleVersion
from rlhf_cluster.records import Batch
from rlhf_cluster.testing.fleet import SimulatedRank, SimulatedWorker, lognormal
from rlhf_cluster.testing.virtual_time import run


async def serving(**settings) -> SimulatedWorker:
    worker = SimulatedWorker(**{"tokens_per_completion": 10, **settings})
    await worker.start()
    await worker.adopt(await handle_of(3))
    return worker


def test_groups_come_back_whole_when_their_time_has_passed():
    async def main():
        worker = await serving(seconds_of=lambda request: 1.0 + request.request_id)
        seen = []
        async for message in worker.run([request(2), request(0), request(1)]):
            seen += [(group.request_id, now_s()) for group in message]
            for group in message:
                assert group.lengths.tolist() == [10, 10]
                assert group.num_tokens == len(group.logprobs) == len(group.versions) == 20
                assert set(group.versions.tolist()) == {3}
                assert group.finish_reasons == ("length", "length")
                assert np.isfinite(group.logprobs).all()
        return seen

    assert run(main()) == [(0, 1.0), (1, 2.0), (2, 3.0)]


def test_groups_that_finish_together_come_in_one_message():
    async def main():
        worker = await serving()
        return [len(message) async for message in worker.run([request(n) for n in range(5)])]

    assert run(main()) == [5]


def test_requests_beyond_the_slots_wait_in_order():
    async def main():
        worker = await serving(slots=2)
        return [(now_s(), [g.request_id for g in m]) async for m in worker.run([request(n) for n in range(5)])]

    assert run(main()) == [(1.0, [0, 1]), (2.0, [2, 3]), (3.0, [4])]


def test_equal_seeds_and_versions_give_equal_groups_on_any_worker():
    async def main():
        [one], [other] = await asyncio.gather(
            groups_of(await serving(worker_id="a"), request(7)),
            groups_of(await serving(worker_id="b", slots=1, seconds_of=lambda r: 9.0), request(7)),
        )
        [different] = await groups_of(await serving(), request(8))
        return columns(one), columns(other), columns(different)

    one, other, different = run(main())
    assert one == other
    assert one[1] != different[1]


def test_tokens_after_an_adopt_carry_the_new_version():
    async def main():
        worker = await serving(seconds_of=lambda request: 10.0)

        async def adopt_later() -> None:
            await asyncio.sleep(4)
            await worker.adopt(await handle_of(4))

        adopting = asyncio.create_task(adopt_later())
        [group] = await groups_of(worker, request())
        await adopting
        return group

    assert run(main()).versions.tolist() == [3, 3, 3, 3, 4, 4, 4, 4, 4, 4] * 2


def test_drain_hands_over_what_another_worker_finishes_in_the_time_that_is_left():
    async def main():
        leaving = await serving(worker_id="leaving", slots=1, seconds_of=lambda request: 10.0)
        reading = asyncio.create_task(groups_of(leaving, request(0), request(1)))
        await asyncio.sleep(6)
        await leaving.drain()
        begun, untouched = await reading
        assert not begun.is_finished
        assert begun.lengths.tolist() == [6, 6]
        assert not untouched.is_finished
        assert untouched.num_tokens == 0
        with pytest.raises(NotServing, match="draining"):
            await groups_of(leaving, request(2))
        staying = SimulatedWorker("staying", tokens_per_completion=10, seconds_of=lambda request: 10.0)
        await staying.adopt(await handle_of(5))
        started_s = now_s()
        [finished] = await groups_of(staying, request(0, begun=begun))
        return begun, finished, now_s() - started_s

    begun, finished, seconds = run(main())
    assert seconds == pytest.approx(4.0)
    assert finished.is_finished
    assert finished.worker_id == "staying"
    for kept, whole in zip(begun.completions(), finished.completions(), strict=True):
        assert whole[:6].tolist() == kept.tolist()
    assert finished.versions.tolist() == [3] * 6 + [5] * 4 + [3] * 6 + [5] * 4


def test_completions_that_were_finished_before_a_handover_stay_as_they_are():
    async def main():
        worker = await serving()
        [whole] = await groups_of(worker, request())
        keep = np.r_[0:10, 10:14]
        begun = type(whole)(
            request_id=0,
            prompt=whole.prompt,
            worker_id="gone",
            lengths=np.array([10, 4], np.int32),
            token_ids=whole.token_ids[keep],
            logprobs=whole.logprobs[keep],
            versions=whole.versions[keep],
            finish_reasons=("stop", "unfinished"),
        )
        [finished] = await groups_of(worker, request(begun=begun))
        return whole, finished

    whole, finished = run(main())
    assert columns(finished) == columns(whole)
    assert finished.finish_reasons == ("stop", "length")


def test_status_shows_tokens_growing_while_time_passes():
    async def main():
        worker = await serving(seconds_of=lambda request: 10.0)
        reading = asyncio.create_task(groups_of(worker, request(0), request(1)))
        seen = []
        for _ in range(3):
            await asyncio.sleep(2.5)
            status = await worker.status()
            seen.append((status.state, status.tokens_total, status.tokens_in_flight, status.num_in_flight))
        await reading
        after = await worker.status()
        return seen, (after.state, after.tokens_total, after.tokens_in_flight, after.busy_s)

    seen, after = run(main())
    assert seen == [("busy", 8, 8, 2), ("busy", 20, 20, 2), ("busy", 28, 28, 2)]
    assert after == ("idle", 40, 0, 10.0)


def test_nothing_is_served_before_a_first_adopt():
    async def main():
        worker = SimulatedWorker()
        await worker.start()
        assert (await worker.status()).state == "unverified"
        with pytest.raises(NotServing, match="no weight version was adopted yet"):
            await groups_of(worker, request())

    run(main())


def test_an_adopt_proves_the_manifest():
    async def main():
        worker = SimulatedWorker(adopt_s=2.5)
        handle = await handle_of(1)
        return await worker.adopt(handle), handle, await worker.status()

    proof, handle, status = run(main())
    assert (proof.version, proof.fingerprint, proof.adopt_s) == (1, handle.manifest.fingerprint, 2.5)
    assert status.version == 1


def test_an_older_version_is_refused_and_nothing_served_after_it():
    async def main():
        worker = await serving()
        reading = asyncio.create_task(groups_of(worker, request()))
        await asyncio.sleep(0.5)
        with pytest.raises(StaleVersion):
            await worker.adopt(await handle_of(2))
        with pytest.raises(NotServing):
            await reading
        await worker.adopt(await handle_of(4))
        return await groups_of(worker, request())

    assert len(run(main())) == 1


def test_an_older_author_is_refused_and_changes_nothing():
    async def main():
        worker = await serving()
        await worker.adopt(await handle_of(4, author=(1, 1)))
        with pytest.raises(StaleVersion, match="replaced"):
            await worker.adopt(await handle_of(5, author=(1, 0)))
        return await groups_of(worker, request())

    assert set(run(main())[0].versions.tolist()) == {4}


def test_a_delta_that_does_not_apply_is_refused_and_the_worker_goes_on():
    async def main():
        rank = SimulatedRank(full_every=10)
        whole = await rank.publish()
        deltas = []
        for step in range(2):
            await rank.update(None, Batch(step=step, groups=()))
            deltas.append(await rank.publish())
        assert whole is not None
        assert [delta.location for delta in deltas] == [None, None]
        worker, joiner = SimulatedWorker(), SimulatedWorker("joiner")
        for handle in (whole, *deltas):
            await worker.adopt(handle)
        await joiner.adopt(whole)
        with pytest.raises(NeedsFullVersion):
            await joiner.adopt(deltas[-1])
        assert len(await groups_of(joiner, request())) == 1
        await joiner.adopt(await rank.publish_full())
        return (await worker.status()).version, (await joiner.status()).version

    assert run(main()) == (2, 2)


def test_death_raises_for_every_pending_and_later_call():
    async def main():
        worker = await serving(adopt_s=5.0)
        calls = [groups_of(worker, request()), groups_of(worker, request(1)), worker.adopt(await handle_of(4))]
        pending = [asyncio.create_task(call) for call in calls]
        await asyncio.sleep(0.5)
        worker.kill()
        ended = await asyncio.gather(*pending, return_exceptions=True)
        assert [type(error) for error in ended] == [RoleDied] * 3
        for call in (worker.status, worker.drain, worker.close):
            with pytest.raises(RoleDied, match="rollout-0 was killed"):
                await call()

    run(main())


def test_a_reader_that_gives_up_frees_its_slot():
    async def main():
        worker = await serving(slots=1, seconds_of=lambda request: 100.0 if request.request_id == 0 else 1.0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(groups_of(worker, request(0)), 10)
        await groups_of(worker, request(1))
        return now_s(), (await worker.status()).num_in_flight

    assert run(main()) == (11.0, 0)


def test_long_tails_are_the_same_every_time_and_have_their_mean():
    seconds_of = lognormal(1.0, mean_s=60.0, seed=3)
    drawn = [seconds_of(request(n)) for n in range(4000)]
    assert drawn == [lognormal(1.0, mean_s=60.0, seed=3)(request(n)) for n in range(4000)]
    assert np.mean(drawn) == pytest.approx(60.0, rel=0.1)
    assert np.std(np.log(drawn)) == pytest.approx(1.0, rel=0.1)
    assert max(lognormal(1.0, mean_s=60.0, cap_s=120.0)(request(n)) for n in range(1000)) == 120.0


def test_a_thousand_workers_fit_into_one_loop():
    num_workers, num_each = 1000, 16

    async def main():
        seconds_of = lognormal(0.5, mean_s=30.0)
        workers = [SimulatedWorker(f"rollout-{n}", seconds_of=seconds_of, slots=8) for n in range(num_workers)]
        handle = await handle_of(0)
        await asyncio.gather(*(worker.adopt(handle) for worker in workers))
        started = time.perf_counter()
        shares = [[request(n * num_each + i, num=8) for i in range(num_each)] for n in range(num_workers)]
        made = time.perf_counter()
        answers = await asyncio.gather(*(groups_of(w, *share) for w, share in zip(workers, shares, strict=True)))
        spent = time.perf_counter() - made
        print(f"{spent / num_workers / num_each * 1e6:.1f} us a group, requests {made - started:.2f} s")
        return sum(map(len, answers))

    assert run(main()) == num_workers * num_each
