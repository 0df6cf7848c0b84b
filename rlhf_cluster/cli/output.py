"""What every verb prints on stdout: a table for people or JSON for programs, chosen by `-o`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import click

output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="Text for people or JSON for programs.",
)


def emit(data: Any, *, output: str, text: Callable[[], str]) -> None:
    """Print `data` as JSON, or what `text()` makes of it."""
    if output == "json":
        click.echo(json.dumps(data, indent=2, default=str))
    else:
        click.echo(text())


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
