"""`rlhf label add|list|show|work|export|remove`: pairs of completions that people judge, and what they say of them."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rlhf_cluster.cli.label_file import pairs_of, pieces
from rlhf_cluster.cli.label_work import work
from rlhf_cluster.cli.output import emit, output_option, table
from rlhf_cluster.cli.service import connected, request_of, service_options
from rlhf_cluster.cli.words import ago, columns, number
from rlhf_cluster.driver.observers.excerpt import excerpt, printable

if TYPE_CHECKING:
    from rlhf_cluster.wire.labels import LabelSet, LabelStatistics

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group
def label() -> None:
    """Sets of pairs that people judge side by side, on the page or here; NAME is the name of a set."""


label.add_command(work)


@label.command
@click.argument("name")
@click.argument("file", type=FILE)
@click.option("--overlap", type=click.IntRange(min=1), default=1, show_default=True, help="Labels wanted of each pair.")
@click.option("--guidelines", type=FILE, help="A text that whoever judges is shown: what makes an answer better.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Of the sides.")
@service_options
@output_option
def add(name: str, file: Path, overlap: int, guidelines: Path | None, seed: int, output: str) -> None:
    """Make the set NAME of FILE: JSON lines with `prompt` and `completion_a`, `completion_b`, or with `chosen` and
    `rejected` to be judged anew. Other columns are kept as provenance."""
    from rlhf_cluster.wire.labels import AddPairs, CreateLabelSet

    first, *rest = pieces(pairs_of(file))
    text = guidelines.read_text(encoding="utf-8") if guidelines else ""
    wanted = request_of(CreateLabelSet, name=name, pairs=first, guidelines=text, overlap=overlap, seed=seed)
    with connected() as client:
        made = client.create_label_set(wanted)
        for piece in rest:
            made = client.add_pairs(name, request_of(AddPairs, pairs=piece))
    emit(made, output=output, text=lambda: f"{made.name} has {made.num_pairs} pairs; `rlhf label work {made.name}`")


@label.command("list")
@service_options
@output_option
def list_sets(output: str) -> None:
    """List the sets, newest first."""
    with connected() as client:
        found = list(client.label_sets())
    now_s = time.time()
    rows = [
        [
            each.name,
            each.num_pairs,
            each.num_done,
            each.num_labels,
            each.overlap,
            printable(each.created_by),
            ago(each.created_s, now_s=now_s),
        ]
        for each in found
    ]
    headers = ("name", "pairs", "done", "labels", "wanted of each", "by", "made")
    emit(found, output=output, text=lambda: table(headers, rows) if rows else "there is no label set")


@label.command
@click.argument("name")
@service_options
@output_option
def show(name: str, output: str) -> None:
    """Show how far NAME is, who agrees with whom, and whether a side is favoured."""
    with connected() as client:
        found, told = client.label_set(name), client.label_statistics(name)
    data = {"label_set": found.model_dump(mode="json"), "statistics": told.model_dump(mode="json")}
    emit(data, output=output, text=lambda: _text(found, told))


def _text(found: LabelSet, told: LabelStatistics) -> str:
    low, high = told.left_interval
    side = f"{number(told.left_share)} (95 %: {low:.2f} to {high:.2f}); 0.5 where nobody looks at the side"
    head = columns(
        [
            ("set", f"{found.name}, by {found.created_by}"),
            ("pairs", f"{found.num_done} of {found.num_pairs} have the {found.overlap} wanted"),
            ("labels", f"{told.num_labels}, {told.num_skips} skips, {told.num_undone} undone"),
            ("agreement", number(told.agreement)),
            ("left chosen", side if told.left_share is not None else ""),
            ("ties", number(told.tie_rate)),
            ("skips", number(told.skip_rate)),
            ("median", f"{number(told.median_s)} s" if told.median_s is not None else ""),
            ("guidelines", excerpt(found.guidelines)),
        ]
    )
    people = [
        (printable(each.labeler), each.num_labels, each.num_ties, each.num_skips, number(each.median_s))
        for each in told.labelers
    ]
    both = [
        (printable(" and ".join(each.labelers)), each.num_pairs, number(each.agreement), number(each.kappa))
        for each in told.pairs_of_labelers
    ]
    parts = [head]
    if people:
        parts.append(table(("who", "labels", "ties", "skips", "median s"), people))
    if both:
        parts.append(table(("both", "pairs", "agreement", "kappa"), both))
    return "\n\n".join(parts)


@label.command
@click.argument("name")
@click.option("--to", "path", type=click.Path(path_type=Path, dir_okay=False), help="A file; stdout when left out.")
@click.option("--min-labels", type=click.IntRange(min=1), help="Only pairs with at least so many labels.")
@service_options
def export(name: str, path: Path | None, min_labels: int | None) -> None:
    """Write what was judged as JSON lines: `prompt`, `chosen`, `rejected`, `tie`, who said so and how many agreed."""
    with connected() as client:
        lines = client.export_labels(name, min_labels=min_labels)
    if path is None:
        sys.stdout.write(lines.decode())
        return
    path.write_bytes(lines)
    num_pairs = lines.count(b"\n")
    click.echo(f"{num_pairs} pairs are in {path}")


@label.command
@click.argument("name")
@service_options
@output_option
def remove(name: str, output: str) -> None:
    """Remove NAME with all its labels; export them first."""
    with connected() as client:
        client.remove_label_set(name)
    emit({"removed": name}, output=output, text=lambda: f"removed {name}")
