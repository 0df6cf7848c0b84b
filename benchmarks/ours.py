"""This project on a workload: a whole GRPO job on Ray, every process counted; or the learner rank alone.

`--variant ray` runs the job as a user would, with vLLM rollout workers, a reward server and a learner as actors, and
meters from the end of one step to the end of the next: driver, Ray's own processes, weight hand-over and all.
`--variant local` is the same job in one process. `--variant worker` meters the rollout worker alone, from requests to
groups, for comparison with bare vLLM. `--variant learner` meters `LearnerRank.update` alone, on random
tokens of the workload's shapes, for comparison with bare torch; `learner_padded` gives every completion its own row.

    python benchmarks/ours.py --model DIR --workload lite --steps 3 --variant ray --json
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from measure import Arguments, Measurement, Meter, measure_steps, parse_arguments, pin_environment, report, summarize
from measure import tree_cpu_s as cpu_now_s
from workloads import Workload, prompt_texts

HERE = Path(__file__).parent
WARM_UP_STEPS = 2
"""Of a whole job: two versions of the weights must have been in the object store before no new memory is taken."""


def reward_by_characters(sample: Any) -> float:
    """A reward that costs nothing and differs inside a group; the peers' scripts use the same."""
    return float(len(set(sample.completion)))


class StepMeter:
    """An observer that closes a step's account when the driver says that it is done."""

    def __init__(self) -> None:
        self.meter = Meter()
        self.startup_cpu_s = 0.0
        self.metrics: list[dict[str, float]] = []
        self._num_warm_up = WARM_UP_STEPS

    def on_event(self, event: Any) -> None:
        if type(event).__name__ != "StepDone":
            return
        if not self._num_warm_up:
            self.meter.end_step()
            self.metrics.append(dict(event.metrics))
        else:
            self._num_warm_up -= 1
            self.startup_cpu_s = cpu_now_s()
        self.meter.begin_step()

    def close(self) -> None:
        pass


def job_tree(arguments: Arguments, *, prompts: Path, runs: Path) -> dict[str, Any]:
    workload = arguments.workload
    packed_tokens = workload.prompt_tokens + workload.num_completions * workload.max_new_tokens
    return {
        "name": "benchmark",
        "runtime": arguments.variant,
        "output_dir": str(runs),
        "model": str(arguments.model),
        "data": {"train": {"type": "jsonl", "path": str(prompts)}, "shuffle": False},
        "rollout": {"max_new_tokens": workload.max_new_tokens, "ignore_eos": True, "engine": {"type": "vllm"}},
        "rewards": [{"function": "ours:reward_by_characters"}],
        "algorithm": {"type": "grpo", "keep_zero_variance": True},
        "learner": {"precision": "bf16", "microbatch_tokens": max(2048, packed_tokens), "optimizer": {"lr": 1e-6}},
        "train": {
            "num_steps": arguments.num_steps + WARM_UP_STEPS,
            "prompts_per_step": workload.num_prompts,
            "completions_per_prompt": workload.num_completions,
        },
        "observers": [],
    }


def measure_job(arguments: Arguments) -> Measurement:
    from rlhf_cluster.config.load import check
    from rlhf_cluster.driver.run import run_job
    from rlhf_cluster.models.load import load_tokenizer

    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    tokenizer = load_tokenizer(arguments.model)
    with tempfile.TemporaryDirectory() as directory:
        prompts = Path(directory) / "prompts.jsonl"
        steps = range(arguments.num_steps + WARM_UP_STEPS)
        texts = [text for step in steps for text in prompt_texts(arguments.workload, tokenizer=tokenizer, step=step)]
        prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
        job = check(job_tree(arguments, prompts=prompts, runs=Path(directory)), source="benchmark")
        observer = StepMeter()
        asyncio.run(run_job(job, observers=observer, stop=asyncio.Event()))
    seconds = ("driver/gather_s", "learner/update_s", "weights/publish_s", "weights/adopt_s", "driver/step_s")
    notes = {name: [round(step[name], 3) for step in observer.metrics] for name in seconds}
    return summarize(
        f"ours_{arguments.variant}",
        arguments,
        steps=observer.meter.steps,
        startup_cpu_s=observer.startup_cpu_s,
        notes=notes,
    )


def measure_learner(arguments: Arguments) -> Measurement:
    import torch

    from rlhf_cluster.algorithms import GRPO
    from rlhf_cluster.learner.rank import LearnerRank
    from rlhf_cluster.learner.settings import LearnerSettings, OptimizerSettings
    from rlhf_cluster.learner.spec import LearnerSpec
    from rlhf_cluster.records import Batch
    from rlhf_cluster.weights.memory import MemoryTransport

    torch.set_num_threads(1)
    workload = arguments.workload
    spec = LearnerSpec(
        settings=LearnerSettings(
            precision="bf16",
            packing="padded" if arguments.variant == "learner_padded" else "prefix",
            optimizer=OptimizerSettings(lr=1e-6),
        ),
        model_path=arguments.model,
        temperature=1.0,
        num_steps=arguments.num_steps + 1,
        seed=0,
        serving_dtype="bfloat16",
        probe_token_ids=np.arange(16, dtype=np.int32),
        probe_tolerance=0.3,
    )
    rank = LearnerRank(spec, rank=0, num_ranks=1, transport=MemoryTransport())
    vocab_size = rank.network.language_model.config.vocab_size

    def run_step(step: int, meter: Meter) -> None:
        rank.update(GRPO(), Batch(step=step, groups=_random_groups(workload, vocab_size=vocab_size, step=step)))

    return measure_steps(f"ours_{arguments.variant}", arguments, run_step=run_step, notes={"torch": torch.__version__})


def measure_worker(arguments: Arguments) -> Measurement:
    from rlhf_cluster.models.load import load_causal_lm, load_tokenizer
    from rlhf_cluster.records import LogitProbe, Prompt, RolloutRequest, Sampling, WeightHandle
    from rlhf_cluster.rollout.engines.vllm import VllmEngine
    from rlhf_cluster.rollout.worker import RolloutWorker
    from rlhf_cluster.weights.flat import DTYPES, flatten
    from rlhf_cluster.weights.memory import MemoryTransport

    workload, tokenizer = arguments.workload, load_tokenizer(arguments.model)
    weights = load_causal_lm(arguments.model, dtype=DTYPES["bfloat16"]).named_parameters()
    manifest, buffer = flatten(weights, version=0, dtype=DTYPES["bfloat16"])
    # Nothing is to be proven here: the engine's answer is compared with zeros, within any distance.
    probe = LogitProbe(token_ids=np.arange(8, dtype=np.int32), logprobs=np.zeros(7, np.float32), tolerance=1e9)
    worker = RolloutWorker(
        VllmEngine(dtype="bfloat16"), arguments.model, worker_id="rollout-0", transport=MemoryTransport()
    )
    sampling = Sampling(max_new_tokens=workload.max_new_tokens, ignore_eos=True)

    async def answer(requests: list[RolloutRequest]) -> int:
        return sum([group.num_tokens async for groups in worker.run(requests) for group in groups])

    def requests_of(step: int) -> list[RolloutRequest]:
        texts = prompt_texts(workload, tokenizer=tokenizer, step=step)
        prompts = [
            Prompt(prompt_id=str(n), text=text, token_ids=np.array(tokenizer.encode(text), np.int32))
            for n, text in enumerate(texts)
        ]
        return [
            RolloutRequest(
                request_id=n, prompt=prompt, num_completions=workload.num_completions, sampling=sampling, seed=step
            )
            for n, prompt in enumerate(prompts)
        ]

    with asyncio.Runner() as runner:
        runner.run(worker.adopt(WeightHandle(manifest=manifest, location=buffer, probe=probe)))

        def run_step(step: int, meter: Meter) -> None:
            assert runner.run(answer(requests_of(step))) == workload.generated_tokens

        measurement = measure_steps("ours_worker", arguments, run_step=run_step, notes={})
        runner.run(worker.close())
    return measurement


def _random_groups(workload: Workload, *, vocab_size: int, step: int) -> tuple:
    from rlhf_cluster.testing import make_group

    return tuple(
        make_group(
            workload.completion_lengths,
            num_prompt_tokens=workload.prompt_tokens,
            request_id=number,
            vocab_size=vocab_size,
            version=step,
            seed=step,
        )
        for number in range(workload.num_prompts)
    )


def main() -> None:
    variants = ("ray", "local", "worker", "learner", "learner_padded")
    arguments = parse_arguments(__doc__, variants=variants, learner_only="learner" in " ".join(sys.argv))
    pin_environment()
    alone = {"worker": measure_worker, "learner": measure_learner, "learner_padded": measure_learner}
    report(alone.get(arguments.variant, measure_job)(arguments), as_json=arguments.as_json)


if __name__ == "__main__":
    main()
