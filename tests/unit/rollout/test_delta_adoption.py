"""A real worker that adopts deltas: what it serves is what whole versions give, and what does not apply is refused."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rlhf_cluster.errors import FingerprintMismatch, NeedsFullVersion, NotServing, StaleVersion, WeightsUnavailable
from rlhf_cluster.learner.publisher import Publisher
from rlhf_cluster.models.load import load_causal_lm
from rlhf_cluster.records import LogitProbe, Prompt, RolloutGroup, RolloutRequest, Sampling, WeightHandle
from rlhf_cluster.rollout.engines.scripted import ScriptedEngine, probe_logprobs
from rlhf_cluster.rollout.engines.transformers import TransformersEngine
from rlhf_cluster.rollout.worker import RolloutWorker
from rlhf_cluster.testing import save_tiny_model
from rlhf_cluster.weights.filesystem import FilesystemTransport

torch = pytest.importorskip("torch")

PROBE = np.array([3, 1, 4, 1, 5], dtype=np.int32)


class Bench:
    """A tiny model whose weights change a little from version to version, its publishers, and workers to adopt them."""

    def __init__(self, directory: Path, *, engine: str = "scripted") -> None:
        self.engine = engine
        self.model_path = save_tiny_model(directory / "model")
        self.model = load_causal_lm(self.model_path, dtype=torch.float32).eval().requires_grad_(False)
        self.transport = FilesystemTransport(directory / "weights")
        self.workers: list[RolloutWorker] = []
        self.version = 0

    def publisher(self, **options) -> Publisher:
        return Publisher(self.transport, probe=self._probe, dtype=torch.float32, **options)

    def _probe(self, manifest, buffer) -> LogitProbe:
        if self.engine == "scripted":
            logprobs = probe_logprobs({spec.name: spec.digest for spec in manifest.tensors}, PROBE)
        else:
            ids = torch.from_numpy(PROBE.astype(np.int64))
            logprobs = self.model(ids[None]).logits[0, :-1].log_softmax(-1).gather(-1, ids[1:, None])[:, 0].numpy()
        return LogitProbe(token_ids=PROBE, logprobs=logprobs, tolerance=1e-3)

    def learn(self) -> None:
        """Every version another layer changes, in a few places."""
        self.version += 1
        named = [parameter for name, parameter in self.model.named_parameters() if name.endswith("_proj.weight")]
        changed = named[self.version % len(named)].view(-1)
        changed[torch.randperm(len(changed))[:50]] += 0.5

    def publish(self, publisher: Publisher) -> WeightHandle:
        self.learn()
        return publisher.publish(self.model.named_parameters(), version=self.version)

    def worker(self) -> RolloutWorker:
        settings = ScriptedEngine(probe="digests") if self.engine == "scripted" else TransformersEngine()
        name = f"rollout-{len(self.workers)}"
        self.workers.append(RolloutWorker(settings, self.model_path, worker_id=name, transport=self.transport))
        return self.workers[-1]


async def generate(worker: RolloutWorker) -> RolloutGroup:
    request = RolloutRequest(
        request_id=0,
        prompt=Prompt(prompt_id="0/0", text="", token_ids=np.array([5, 6, 7], np.int32)),
        num_completions=2,
        sampling=Sampling(max_new_tokens=12, ignore_eos=True),
        seed=1,
    )
    (group,) = [group async for message in worker.run([request]) for group in message]
    return group


def on_bench(directory: Path, story, **options) -> None:
    """Run `story(bench)` and close its workers."""

    async def main() -> None:
        bench = Bench(directory, **options)
        try:
            await story(bench)
        finally:
            for worker in bench.workers:
                await worker.close()

    asyncio.run(asyncio.wait_for(main(), 60))


@pytest.mark.parametrize("engine", ["scripted", "transformers"])
def test_a_chain_of_deltas_serves_what_whole_versions_serve(tmp_path, engine):
    async def story(bench):
        sparse, whole = bench.publisher(full_every=4), bench.publisher(author=(0, 1))
        by_delta, by_whole = bench.worker(), bench.worker()
        num_deltas = 0
        for _ in range(7):
            handle = bench.publish(sparse)
            num_deltas += handle.location is None
            adopted = await by_delta.adopt(handle)
            expected = await by_whole.adopt(whole.publish(bench.model.named_parameters(), version=bench.version))
            assert (adopted.fingerprint, adopted.num_held_tensors) == (expected.fingerprint, expected.num_held_tensors)
            one, other = await generate(by_delta), await generate(by_whole)
            np.testing.assert_array_equal(one.token_ids, other.token_ids)
            np.testing.assert_array_equal(one.logprobs, other.logprobs)
            assert (one.versions == bench.version).all()
        assert num_deltas == 5

    on_bench(tmp_path, story, engine=engine)


def test_a_joiner_that_cannot_apply_a_delta_gets_the_version_whole_and_then_follows_by_deltas(tmp_path):
    async def story(bench):
        publisher = bench.publisher(full_every=100)
        bench.publish(publisher)
        delta_only = bench.publish(publisher)
        joiner = bench.worker()
        with pytest.raises(NeedsFullVersion, match=r"version 2 was offered as a delta on version 1 .* holds nothing"):
            await joiner.adopt(delta_only)
        with pytest.raises(NotServing, match="no weight version was adopted yet"):
            await generate(joiner)
        await joiner.adopt(publisher.publish_full())
        await joiner.adopt(bench.publish(publisher))
        assert (await generate(joiner)).oldest_version == 3

    on_bench(tmp_path, story)


def test_a_worker_that_missed_a_version_goes_on_serving_until_it_gets_a_whole_one(tmp_path):
    async def story(bench):
        publisher = bench.publisher(full_every=100)
        worker = bench.worker()
        await worker.adopt(bench.publish(publisher))
        bench.publish(publisher)
        third = bench.publish(publisher)
        with pytest.raises(NeedsFullVersion, match="publish it whole"):
            await worker.adopt(third)
        assert ((await worker.status()).state, (await generate(worker)).oldest_version) == ("idle", 1)
        await worker.adopt(publisher.publish_full())
        assert (await generate(worker)).oldest_version == 3

    on_bench(tmp_path, story)


def test_a_delta_that_is_gone_is_no_harm(tmp_path):
    async def story(bench):
        publisher = bench.publisher(full_every=100)
        worker = bench.worker()
        await worker.adopt(bench.publish(publisher))
        second = bench.publish(publisher)
        Path(second.delta.location).unlink()
        with pytest.raises(NeedsFullVersion, match="the delta cannot be had"):
            await worker.adopt(second)
        assert (await generate(worker)).oldest_version == 1
        await worker.adopt(publisher.publish_full())
        assert (await generate(worker)).oldest_version == 2

    on_bench(tmp_path, story)


def test_a_delta_that_was_damaged_is_refused_and_a_whole_version_heals(tmp_path):
    async def story(bench):
        publisher = bench.publisher(full_every=100)
        worker = bench.worker()
        await worker.adopt(bench.publish(publisher))
        second = bench.publish(publisher)
        np.memmap(second.delta.location, dtype=np.uint8, mode="r+")[60] ^= 1
        with pytest.raises(FingerprintMismatch, match="is not the one that was published"):
            await worker.adopt(second)
        with pytest.raises(NotServing, match="was refused"):
            await generate(worker)
        await worker.adopt(publisher.publish_full())
        assert (await generate(worker)).oldest_version == 2

    on_bench(tmp_path, story)


def test_a_true_delta_offered_with_another_manifest_is_found_by_its_digests(tmp_path):
    async def story(bench):
        publisher = bench.publisher(full_every=100)
        worker = bench.worker()
        await worker.adopt(bench.publish(publisher))
        second, third = bench.publish(publisher), bench.publish(publisher)
        with pytest.raises(FingerprintMismatch):
            await worker.adopt(replace(third, delta=second.delta))
        with pytest.raises(NotServing, match="was refused"):
            await generate(worker)

    on_bench(tmp_path, story)


def test_a_learner_that_was_replaced_is_refused_and_what_is_served_goes_on(tmp_path):
    async def story(bench):
        old, new = bench.publisher(author=(1, 4)), bench.publisher(author=(2, 0))
        worker = bench.worker()
        await worker.adopt(bench.publish(new))
        with pytest.raises(StaleVersion, match=r"\(2, 0\).*version 2 by \(1, 4\), which was replaced"):
            await worker.adopt(bench.publish(old))
        assert ((await worker.status()).state, (await generate(worker)).oldest_version) == ("idle", 1)

    on_bench(tmp_path, story)


def test_a_new_learner_may_hand_over_the_same_version_again_but_none_before_it(tmp_path):
    async def story(bench):
        old, new = bench.publisher(full_every=100), bench.publisher(full_every=100, author=(0, 1))
        worker = bench.worker()
        first = bench.publish(old)
        await worker.adopt(first)
        await worker.adopt(bench.publish(old))
        again = new.publish(bench.model.named_parameters(), version=bench.version)
        assert (await worker.adopt(again)).version == 2
        await worker.adopt(bench.publish(new))
        assert (await generate(worker)).oldest_version == 3
        with pytest.raises(StaleVersion, match="versions never go back"):
            await worker.adopt(replace(first, author=(0, 2)))

    on_bench(tmp_path, story)


def test_bytes_are_kept_only_where_deltas_follow(tmp_path):
    async def story(bench):
        worker = bench.worker()
        whole, sparse = bench.publisher(), bench.publisher(full_every=2, author=(0, 1))
        await worker.adopt(bench.publish(whole))
        assert worker._base is None
        await worker.adopt(bench.publish(sparse))
        assert worker._base.manifest.version == 2
        with pytest.raises(WeightsUnavailable):
            await worker.adopt(replace(bench.publish(sparse), delta=None, location=str(tmp_path / "nowhere")))
        assert worker._base.manifest.version == 2

    on_bench(tmp_path, story)
