"""This project on recorded examples: the learner rank alone, as TRL's trainers are, or a whole job, driver and all.

`sft` and `dpo` meter `LearnerRank.update`; `dpo` has the reference scored in every step, as TRL does unless told
otherwise, and `dpo_precomputed` before the first. `sft_job` and `dpo_job` run the job that a user would write, in one
process, and meter from the end of one step to the end of the next; a job scores the reference in its first epoch, which
is all that is run here.

    python benchmarks/ours_recorded.py --model DIR --data FILE --variant sft --steps 2
"""

from __future__ import annotations

import asyncio
import resource
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
from measure import Measurement, Meter, StepCost, pin_environment, tree_cpu_s
from ours import WARM_UP_STEPS, StepMeter
from recorded_work import EXAMPLES_PER_STEP, LR, Arguments, Example, parse_arguments, read_steps

VARIANTS = ("sft", "sft_job", "dpo", "dpo_precomputed", "dpo_job")
BETAS = (0.9, 0.999)
"""TRL's default; ours has 0.95."""


def rss_mib() -> float:
    return psutil.Process().memory_info().rss / 2**20


def peak_rss_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(
    contender: str,
    arguments: Arguments,
    *,
    steps: list[StepCost],
    startup_cpu_s: float,
    losses: Sequence[float],
    loaded_rss_mib: float | None,
    **notes: object,
) -> Measurement:
    """The contender's line; all steps have the same lengths, so those of the first are those of all. `loaded_rss_mib`
    is what the process held once it had the model, None where nobody looked."""
    examples = next(arguments.steps())
    return Measurement(
        contender=contender,
        workload=arguments.task,
        steps=steps,
        startup_cpu_s=startup_cpu_s,
        peak_rss_mib=peak_rss_mib(),
        generated_tokens=sum(each.num_trained for each in examples),
        total_tokens=sum(each.num_tokens for each in examples),
        notes={
            "losses": list(losses),
            "peak_over_model_mib": None if loaded_rss_mib is None else peak_rss_mib() - loaded_rss_mib,
            "precision": arguments.precision,
            **notes,
        },
    )


def groups_of(examples: Sequence[Example], *, step: int) -> tuple[Any, ...]:
    """As recorded data comes to the learner; a pair's first completion is the preferred one."""
    import numpy as np

    from rlhf_cluster.records import Prompt, RolloutGroup

    def group(number: int, example: Example) -> RolloutGroup:
        token_ids = np.concatenate([np.array(ids, np.int32) for ids in example.completions])
        return RolloutGroup(
            request_id=step * len(examples) + number,
            prompt=Prompt(prompt_id=f"{number}/{step}", text="", token_ids=np.array(example.prompt_ids, np.int32)),
            worker_id="recorded",
            lengths=np.array([len(ids) for ids in example.completions], np.int32),
            token_ids=token_ids,
            logprobs=np.zeros(len(token_ids), np.float32),
            versions=np.zeros(0, np.int32),
            finish_reasons=("stop",) * len(example.completions),
            rewards=np.array([1.0, 0.0], np.float32) if len(example.completions) == 2 else None,
        )

    return tuple(group(number, example) for number, example in enumerate(examples))


def open_rank(arguments: Arguments) -> Any:
    import numpy as np

    from rlhf_cluster.learner.rank import LearnerRank
    from rlhf_cluster.learner.settings import LearnerSettings, OptimizerSettings
    from rlhf_cluster.learner.spec import LearnerSpec
    from rlhf_cluster.weights.memory import MemoryTransport

    spec = LearnerSpec(
        settings=LearnerSettings(
            precision=arguments.precision, optimizer=OptimizerSettings(lr=LR[arguments.task], betas=BETAS)
        ),
        model_path=arguments.model,
        temperature=1.0,
        num_steps=arguments.num_steps + 1,
        seed=0,
        serving_dtype="bfloat16",
        probe_token_ids=np.arange(16, dtype=np.int32),
        probe_tolerance=0.3,
    )
    return LearnerRank(spec, rank=0, num_ranks=1, transport=MemoryTransport())


def open_reference(arguments: Arguments, runner: asyncio.Runner) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    from rlhf_cluster.reference.scorer import ReferenceScorer
    from rlhf_cluster.reference.settings import ReferenceSettings

    settings = ReferenceSettings(precision=arguments.precision)
    scorer = ReferenceScorer(settings, model_path=arguments.model, temperature=1.0, worker_id="reference-0")
    runner.run(scorer.start())
    return lambda groups: runner.run(scorer.logprobs(groups))


def measure_rank(arguments: Arguments) -> Measurement:
    import torch

    from rlhf_cluster.algorithms import DPO, SFT
    from rlhf_cluster.records import Batch

    torch.set_num_threads(1)
    algorithm = SFT() if arguments.task == "sft" else DPO()
    rank = open_rank(arguments)
    loaded_rss_mib = rss_mib()
    batches = [groups_of(examples, step=step) for step, examples in enumerate(arguments.steps())]
    meter, losses, startup_cpu_s = Meter(), [], 0.0
    with asyncio.Runner() as runner:
        score = open_reference(arguments, runner) if arguments.task == "dpo" else None
        if arguments.variant == "dpo_precomputed":
            batches, score = [score(groups) for groups in batches], None
        for step, groups in enumerate(batches):
            startup_cpu_s = tree_cpu_s() if step == 1 else startup_cpu_s
            with meter.step():
                with meter.part("reference"):
                    scored = groups if score is None else score(groups)
                report = rank.update(algorithm, Batch(step=step, groups=algorithm.credit(scored)))
            losses.append(report.metrics["learner/loss"])
    return measured(
        f"ours_{arguments.variant}",
        arguments,
        steps=meter.steps[1:],
        startup_cpu_s=startup_cpu_s,
        losses=losses,
        loaded_rss_mib=loaded_rss_mib,
        torch=torch.__version__,
    )


def job_tree(arguments: Arguments, *, num_steps: int, runs: Path) -> dict[str, Any]:
    return {
        "name": "benchmark",
        "runtime": "local",
        "output_dir": str(runs),
        "model": str(arguments.model),
        "data": {"train": {"type": "jsonl", "path": str(arguments.data)}, "shuffle": False},
        "algorithm": {"type": arguments.task},
        "reference": {"precision": arguments.precision},
        "learner": {
            "precision": arguments.precision,
            "optimizer": {"lr": LR[arguments.task], "betas": BETAS},
        },
        "train": {"num_steps": num_steps, "prompts_per_step": EXAMPLES_PER_STEP[arguments.task]},
        "observers": [],
    }


def measure_job(arguments: Arguments) -> Measurement:
    from rlhf_cluster.config.load import check
    from rlhf_cluster.driver.run import run_job

    observer = StepMeter()
    num_steps = min(arguments.num_steps + WARM_UP_STEPS, len(read_steps(arguments.data, task=arguments.task)))
    with tempfile.TemporaryDirectory() as directory:
        tree = job_tree(arguments, num_steps=num_steps, runs=Path(directory))
        asyncio.run(run_job(check(tree, source="benchmark"), observers=observer, stop=asyncio.Event()))
    return measured(
        f"ours_{arguments.variant}",
        arguments,
        steps=observer.meter.steps,
        startup_cpu_s=observer.startup_cpu_s,
        losses=[step["learner/loss"] for step in observer.metrics],
        loaded_rss_mib=None,
    )


def main() -> None:
    arguments = parse_arguments(__doc__, variants=VARIANTS)
    pin_environment()
    measure = measure_job if arguments.variant.endswith("_job") else measure_rank
    print(measure(arguments).to_json())


if __name__ == "__main__":
    main()
