"""`rlhf models list|add`: the models that jobs can name."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from rlhf_cluster.cli.output import emit, output_option, table


@click.group
def models() -> None:
    """Models by name, kept in $RLHF_CLUSTER_HOME/models (~/.cache/rlhf_cluster/models)."""


@models.command("list")
@output_option
def list_models(output: str) -> None:
    """Known models, present or not, and those you added."""
    from rlhf_cluster.models import registry

    records = registry.list_models()
    headers = ("name", "present", "parameters", "size", "description")
    rows = [
        (
            record.name,
            "yes" if record.present else "no",
            *_sizes(record.num_params, record.num_bytes),
            record.description,
        )
        for record in records
    ]
    emit([dataclasses.asdict(record) for record in records], output=output, text=lambda: table(headers, rows))


@models.command
@click.argument("name")
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path, exists=True),
    help="A directory in Hugging Face format to copy, or a .gguf file to convert.",
)
@output_option
def add(name: str, source: Path | None, output: str) -> None:
    """Make the model NAME present: a known one is fetched or generated, one of your own comes --from a path."""
    from rlhf_cluster.models import registry

    path = registry.add(name, source=source, progress=lambda line: click.echo(line, err=True))
    emit({"name": name, "path": path}, output=output, text=lambda: str(path))


def _sizes(num_params: int | None, num_bytes: int) -> tuple[str, str]:
    """
    >>> _sizes(134_515_008, 272_000_000), _sizes(None, 0)
    (('134.5M', '272.0 MB'), ('', ''))
    """
    params = f"{num_params / 1e6:.1f}M" if num_params else ""
    return params, f"{num_bytes / 1e6:.1f} MB" if num_bytes else ""
