"""`rlhf export CHECKPOINT --to DIR`: a checkpoint as a model of its own, adapters merged."""

from __future__ import annotations

from pathlib import Path

import click

from rlhf_cluster.cli.failure import NotFound
from rlhf_cluster.cli.output import emit, output_option


@click.command
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--to", "target", type=click.Path(path_type=Path), required=True, help="The new directory.")
@output_option
def export(checkpoint: Path, target: Path, output: str) -> None:
    """Write the model of CHECKPOINT into a new directory in Hugging Face format, for transformers, vLLM and other jobs.

    Low-rank adapters are merged into the model that they are for; what a job needs to go on is left out.

    \b
    rlhf export runs/sft-1/checkpoints/step-000020 --to models/sft
    """
    if not checkpoint.is_dir():
        raise NotFound(
            f"no checkpoint directory {checkpoint}; jobs write theirs into checkpoints/ of the job directory"
        )
    from rlhf_cluster.models.export import export_checkpoint

    export_checkpoint(checkpoint, target)
    emit({"path": target}, output=output, text=lambda: str(target))
