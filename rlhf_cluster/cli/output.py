"""What every verb prints on stdout: a table for people, or JSON for programs, whole or a line an item; `-o` chooses."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import click

output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "jsonl"]),
    default="table",
    show_default=True,
    help="Text for people, or JSON for programs: one document, or one line an item.",
)


def emit(data: Any, *, output: str, text: Callable[[], str]) -> None:
    """Print `data` as JSON, or what `text()` makes of it. A message of the API is data too."""
    if output == "json":
        click.echo(json.dumps(data, indent=2, default=_plain))
    elif output == "jsonl":
        for item in data if isinstance(data, list | tuple) else [data]:
            emit_line(item)
    else:
        click.echo(text())


def emit_line(item: Any) -> None:
    """One JSON line, at once: somebody may be reading along."""
    click.echo(json.dumps(item, default=_plain))


def _plain(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    return str(value) if dump is None else dump(mode="json")


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns aligned left, two spaces apart.

    >>> print(table(["name", "steps"], [["tiny", 20], ["positive-reviews", 60]]))
    name              steps
    tiny              20
    positive-reviews  60
    """
    cells = [[str(cell) for cell in row] for row in (headers, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in lines)
