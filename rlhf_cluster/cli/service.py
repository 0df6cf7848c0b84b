"""What the verbs share that ask a service: where it is, the job that is meant, and what the job's driver answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rlhf_cluster.cli.failure import Detached, Refused, Unavailable
from rlhf_cluster.cli.output import emit
from rlhf_cluster.driver.observers.excerpt import printable
from rlhf_cluster.errors import BadRequest, ServiceAway

if TYPE_CHECKING:
    from rlhf_cluster.client import Client
    from rlhf_cluster.wire.base import Request
    from rlhf_cluster.wire.jobs import Command

OVER = ("succeeded", "failed", "cancelled")
ASKED = ("pending", "delivered")
"""States of a command that has no answer yet."""
FIRST_LOOK_S, LOOK_EVERY_S = 0.05, 0.5
AWAY_S = 120.0
"""While something is watched, the service may be away for so long: it is being started again."""
SERVER, TOKEN = f"{__name__}.server", f"{__name__}.token"
Function = TypeVar("Function", bound=Callable[..., object])
Found = TypeVar("Found")
Kind = TypeVar("Kind", bound="Request")


def service_options(function: Function) -> Function:
    """`--server` and `--token`, which only `connected` reads."""
    for name, key, help in (
        ("--token", TOKEN, "Token for it; RLHF_TOKEN hides it from other users of this machine."),
        ("--server", SERVER, "Address of the service; else RLHF_SERVER, `rlhf login` or `rlhf up` says."),
    ):
        function = click.option(name, expose_value=False, callback=_kept_as(key), help=help)(function)
    return function


def _kept_as(key: str) -> Callable[[click.Context, click.Parameter, str | None], None]:
    def keep(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
        ctx.meta[key] = value

    return keep


@contextmanager
def connected() -> Generator[Client]:
    """Raises `ServiceAway` where no server is known."""
    from rlhf_cluster.client import Client

    given = click.get_current_context().meta
    with Client.connect(given.get(SERVER), given.get(TOKEN)) as client:
        yield client


def request_of(kind: type[Kind], **fields: Any) -> Kind:
    """What is sent, checked before it is. Raises `BadRequest` with every field that is wrong."""
    from pydantic import ValidationError

    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, each['loc'])) or 'request'}: {each['msg']}" for each in error.errors())
        raise BadRequest("; ".join(problems)) from error


@contextmanager
def detaching(what: str) -> Generator[None]:
    """Around something that is only watched: Ctrl-C ends the watching and says `what` is to be known of it."""
    try:
        yield
    except KeyboardInterrupt:
        raise Detached(f"detached: {what}") from None


def show_answer(client: Client, asked: Command, *, within_s: float, output: str) -> None:
    text = answer_of(client, asked, within_s=within_s)
    emit(asked.body | {"answer": text}, output=output, text=lambda: text)


def answer_of(client: Client, asked: Command, *, within_s: float) -> str:
    """The driver's sentence, fit for a terminal. Raises `Refused`, and `Unavailable` when it does not answer."""

    def look() -> Command | None:
        command = client.command(asked.job_id, asked.command_id)
        return None if command.state in ASKED else command

    stays = f"the command stays until its driver takes it; `rlhf status {asked.job_id}` shows what it does"
    with detaching(stays):
        command = wait_for(look, within_s=within_s)
    if command is None:
        raise Unavailable(f"the job's driver has not answered within {within_s:g} s; {stays}")
    if command.state == "expired":
        raise Unavailable("the job's driver has not taken the command in time, and it does not hold any more")
    if command.state == "refused":
        raise Refused(printable(command.answer))
    return printable(command.answer)


def patiently(ask: Callable[[], Found]) -> Found:
    """The answer, also of a service that is being started again. Raises `ServiceAway` when it stays away."""
    answer = wait_for(lambda: (ask(),), within_s=AWAY_S)
    assert answer is not None
    return answer[0]


def wait_for(look: Callable[[], Found | None], *, within_s: float) -> Found | None:
    """What `look` finds, asked again and again; None after `within_s`. Raises `ServiceAway` when the service is away
    at the end, and not before: it may be being started again."""
    deadline_s, pause_s = time.monotonic() + within_s, FIRST_LOOK_S
    while True:
        away: ServiceAway | None = None
        try:
            if (found := look()) is not None:
                return found
        except ServiceAway as error:
            away = error
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            if away is not None:
                raise away
            return None
        time.sleep(min(pause_s, left_s))
        pause_s = min(pause_s * 1.5, LOOK_EVERY_S)
