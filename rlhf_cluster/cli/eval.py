"""`rlhf eval JOB`: the held-out evaluation of a job, of its model or of a checkpoint, and nothing else."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import click

from rlhf_cluster.cli.failure import NotFound
from rlhf_cluster.cli.job import job_argument, load, overrides_argument
from rlhf_cluster.cli.output import emit, output_option, table
from rlhf_cluster.cli.words import number

NUM_SHOWN = 3


@click.command("eval")
@job_argument
@overrides_argument
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    help="Evaluate this directory in Hugging Face format instead of the job's model.",
)
@output_option
def evaluate(job: str, overrides: tuple[str, ...], checkpoint: Path | None, output: str) -> None:
    """Evaluate JOB on its held-out prompts; train nothing.

    \b
    rlhf eval job.toml
    rlhf eval word-world --checkpoint runs/word-world-1/checkpoints/step-000040 evaluation.num_prompts=128
    """
    if checkpoint is not None and not checkpoint.is_dir():
        raise NotFound(
            f"no checkpoint directory {checkpoint}; jobs write theirs into checkpoints/ of the job directory"
        )
    config = load(job, overrides)
    from rlhf_cluster.driver.evaluation_file import FILE_NAME
    from rlhf_cluster.driver.observers import journal
    from rlhf_cluster.driver.run import evaluate_job

    event, job_dir = asyncio.run(evaluate_job(config, checkpoint=checkpoint))
    entry, written = journal.entry(event), json.loads((job_dir / FILE_NAME).read_text(encoding="utf-8"))
    data = {
        "figures": written["figures"],
        "metrics": entry["metrics"],
        "samples": entry["samples"],
        "job_dir": str(job_dir),
    }
    emit(data, output=output, text=lambda: _text(data))


def _text(data: dict[str, Any]) -> str:
    from rlhf_cluster.driver.observers.excerpt import excerpt
    from rlhf_cluster.driver.observers.summary import answer

    figures = [
        (name, *(number(each[key]) for key in ("value", "low", "high"))) for name, each in data["figures"].items()
    ]
    metrics = [(name, number(value)) for name, value in data["metrics"].items()]
    tables = [table(("figure", "value", "95 % from", "to"), figures)] if figures else []
    samples = [
        f"prompt  {excerpt(sample['prompt'], width=110, keep='end')}\n"
        f"answer  {answer(sample['completion'], reward=sample['reward'])}"
        for sample in data["samples"][:NUM_SHOWN]
    ]
    places = f"job directory   {data['job_dir']}\nreport          rlhf report {data['job_dir']}"
    return "\n\n".join([*tables, table(("metric", "value"), metrics), *samples, places])
