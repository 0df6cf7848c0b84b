"""`rlhf label work NAME`: judge pairs in the terminal, with the keys of the page."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Literal

import click

from rlhf_cluster.cli.service import connected, service_options
from rlhf_cluster.driver.observers.excerpt import printable

if TYPE_CHECKING:
    from rlhf_cluster.client import Client
    from rlhf_cluster.wire.labels import Shown, Turn

CHOICES: dict[str, Literal["left", "right", "tie", "skip"]] = {"1": "left", "2": "right", "0": "tie", "s": "skip"}
KEYS = "1 or 2: that answer is better, 0: neither is, s: skip, u: undo, q: leave"
UNDO, LEAVE = "u", "q"


@click.command
@click.argument("name")
@service_options
def work(name: str) -> None:
    """Judge pairs of NAME, one after the other: 1 or 2, 0 for a tie, s to skip, u to undo, q to leave.

    Where keys come through a pipe they are a line each.
    """
    with connected() as client:
        label_set = client.label_set(name)
        if label_set.guidelines:
            click.echo(f"{printable(label_set.guidelines)}\n")
        while (turn := client.next_to_label(name)).pair is not None:
            click.echo(f"--- you have judged {turn.num_mine}, {turn.num_left} are left ---")
            if not _judge(client, name, turn.pair):
                return
        click.echo(_nothing_left(turn))


def _judge(client: Client, name: str, pair: Shown) -> bool:
    """False where the person leaves."""
    from rlhf_cluster.errors import ServiceError
    from rlhf_cluster.wire.labels import NewLabel

    click.echo(f"{printable(pair.prompt)}\n")
    click.echo(f"--- 1 ---\n{printable(pair.left)}\n\n--- 2 ---\n{printable(pair.right)}\n")
    shown_s = time.monotonic()
    while (key := _key()) not in (*CHOICES, UNDO, LEAVE):
        click.echo(KEYS)
    if key == LEAVE:
        return False
    try:
        if key == UNDO:
            client.undo_label(name)
        else:
            taken_s = time.monotonic() - shown_s
            client.label(name, NewLabel(pair_id=pair.pair_id, choice=CHOICES[key], taken_s=taken_s))
    except ServiceError as error:
        if error.status != 409:
            raise
        click.echo(str(error), err=True)  # nothing to undo, or others were faster: on with the next
    return True


def _key() -> str:
    if sys.stdin.isatty():
        return click.getchar().lower()
    return (sys.stdin.readline() or LEAVE).strip().lower()


def _nothing_left(turn: Turn) -> str:
    if turn.num_elsewhere:
        return f"others have the last {turn.num_elsewhere} pairs before them; ask again later"
    return "that was all: every pair is judged, or you have judged it"
