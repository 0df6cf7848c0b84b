"""`rlhf recipes list|show`: the jobs that ship with this package."""

from __future__ import annotations

from typing import Any

import click

from rlhf_cluster.cli.failure import NotFound
from rlhf_cluster.cli.output import emit, output_option, table
from rlhf_cluster.errors import did_you_mean


@click.group
def recipes() -> None:
    """Jobs that ship with this package: `rlhf run NAME` runs one, `show NAME` prints it to start your own from."""


@recipes.command("list")
@output_option
def list_recipes(output: str) -> None:
    """Name, runtime, model and purpose of every recipe."""
    from rlhf_cluster.config.load import find, parse, recipe_names

    rows = [_row(name, parse(find(name))) for name in recipe_names()]
    headers = ("name", "runtime", "model", "description")
    emit(rows, output=output, text=lambda: table(headers, [[row[header] for header in headers] for row in rows]))


@recipes.command
@click.argument("name")
@output_option
def show(name: str, output: str) -> None:
    """Print the file of the recipe NAME."""
    from rlhf_cluster.config.load import find, parse, recipe_names

    names = recipe_names()
    if name not in names:
        raise NotFound(f"no recipe is called {name!r}{did_you_mean(name, names)}; known: {', '.join(names) or 'none'}")
    path = find(name)
    emit(parse(path), output=output, text=lambda: path.read_text(encoding="utf-8").rstrip())


def _row(name: str, tree: dict[str, Any]) -> dict[str, str]:
    return {
        "name": name,
        "runtime": tree.get("runtime", "ray"),
        "model": tree.get("model", ""),
        "description": tree.get("description", ""),
    }
