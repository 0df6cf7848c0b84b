"""`rlhf scale JOB rollout=3`: how many workers a running job has from now on; `--auto` leaves it to a policy."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rlhf_cluster.cli.failure import Refused, Unavailable
from rlhf_cluster.cli.output import emit, output_option
from rlhf_cluster.cli.reference import any_job_argument, within_option
from rlhf_cluster.cli.service import answer_of, connected, service_options
from rlhf_cluster.errors import ServiceError, did_you_mean

if TYPE_CHECKING:
    from rlhf_cluster.client import Client
    from rlhf_cluster.wire.jobs import Job

ROLES = ("rollout", "reward", "reference")
AUTOMATIC = ("rollout",)
"""Roles whose size a policy can choose: it looks at who waits for the rollouts."""
NUMBER = "[1-9][0-9]{0,4}"
UNDER_WAY = ("running", "paused")
"""States of a job whose driver can answer."""
LOOKED_AT = 20
"""Newest commands among which ours is searched."""
Size = dict[str, Any]
"""A command in the form of `driver/mailbox.py`."""


class RoleSize(click.ParamType):
    """`rollout=3` as a command."""

    name = "ROLE=N"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Size:
        role, separator, number = value.partition("=")
        if not separator:
            self.fail(f"{value!r} has to be ROLE=N, as in rollout=3", param, ctx)
        if role == "learner":
            self.fail("the learner has a fixed size, learner.num_ranks of the job file", param, ctx)
        if role not in ROLES:
            self.fail(f"{role!r}{did_you_mean(role, ROLES)}: it is one of {', '.join(ROLES)}", param, ctx)
        if not re.fullmatch(NUMBER, number):
            self.fail(f"{value!r}: the number of workers has to be a whole number from 1 to 99999", param, ctx)
        return {"command": "Scale", "role": role, "num_workers": int(number)}


class RoleRange(click.ParamType):
    """`rollout=1..8` as a command."""

    name = "ROLE=MIN..MAX"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Size:
        role, separator, numbers = value.partition("=")
        found = re.fullmatch(f"({NUMBER})\\.\\.({NUMBER})", numbers)
        if not separator or found is None:
            self.fail(f"{value!r} has to be ROLE=MIN..MAX, as in rollout=1..8", param, ctx)
        if role not in AUTOMATIC:
            self.fail(f"{role!r}: a policy can choose the number of {', '.join(AUTOMATIC)} workers alone", param, ctx)
        least, most = int(found[1]), int(found[2])
        if least > most:
            self.fail(f"{value!r}: {least} is more than {most}", param, ctx)
        return {"command": "Autoscale", "role": role, "min_workers": least, "max_workers": most}


def wanted(sizes: Sequence[Size], auto: Size | None) -> list[Size]:
    """What was asked for, each role once."""
    asked = [*sizes, *([] if auto is None else [auto])]
    if not asked:
        raise click.UsageError("say how many: ROLE=N, as in rollout=3, or --auto rollout=1..8")
    roles = [size["role"] for size in asked]
    if len(set(roles)) < len(roles):
        raise click.UsageError(f"each role can be given once; got {', '.join(roles)}")
    return asked


@click.command
@any_job_argument
@click.argument("sizes", metavar="[ROLE=N]...", nargs=-1, type=RoleSize())
@click.option("--auto", type=RoleRange(), help="Have a policy choose the number of rollout workers, between these two.")
@within_option(60)
@service_options
@output_option
def scale(job: Path | str, sizes: Sequence[Size], auto: Size | None, within_s: float, output: str) -> None:
    """Have N workers of a role from now on: rollout, reward or reference. Training does not stop for it.

    \b
    rlhf scale @last rollout=3
    rlhf scale runs/word-world-1 rollout=3 reward=2 reference=2
    rlhf scale word-world --auto rollout=1..8

    A number ends what --auto began. What was asked for last holds for later drivers of the job too. Without a running
    driver, or with one that does not answer, the command waits for it.
    """
    asked = wanted(sizes, auto)
    if isinstance(job, Path):
        _obey(asked, lambda size: _ask_directory(job, size, within_s=within_s), output=output)
        return
    with connected() as client:
        found = client.find(job)
        _obey(asked, lambda size: _ask_service(client, found, size, within_s=within_s), output=output)


def _obey(asked: Sequence[Size], ask: Callable[[Size], str], *, output: str) -> None:
    """One after the other; one that is refused keeps none of the others back."""
    answers, failures = [], []
    for size in asked:
        try:
            answers.append(size | {"answer": ask(size)})
        except (Refused, Unavailable) as failure:
            # Without a driver each of them waits for the next one.
            failures.append((size, failure))
        except ServiceError as failure:
            if failure.status != 409 or len(asked) == 1:
                raise
            failures.append((size, failure))
    if answers:
        emit(answers, output=output, text=lambda: "\n".join(line["answer"] for line in answers))
    if failures:
        kind = Unavailable if any(isinstance(failure, Unavailable) for _, failure in failures) else Refused
        raise kind("\n".join(f"{_in_short(size)}: {failure}" for size, failure in failures))


def _in_short(size: Size) -> str:
    """As it was typed."""
    number = size["num_workers"] if "num_workers" in size else f"{size['min_workers']}..{size['max_workers']}"
    return f"{size['role']}={number}"


def _ask_directory(job_dir: Path, size: Size, *, within_s: float) -> str:
    from rlhf_cluster.cli.control import ask
    from rlhf_cluster.driver.mailbox import from_json

    return ask(job_dir, from_json(dict(size)), within_s=within_s)


def _ask_service(client: Client, job: Job, size: Size, *, within_s: float) -> str:
    from rlhf_cluster.wire.jobs import SetPool

    role = size["role"]
    if "num_workers" in size:
        wish = SetPool(replicas=size["num_workers"])
    else:
        wish = SetPool(mode="auto", min_replicas=size["min_workers"], max_replicas=size["max_workers"])
    client.set_pool(job.job_id, role, wish)
    if job.state not in UNDER_WAY:
        return f"{_in_short(size)} is kept for the job's driver, which starts with it: the job is {job.state}"
    ours = (command for command in client.commands(job.job_id, limit=LOOKED_AT) if command.body == size)
    command = next(ours, None)
    return f"{_in_short(size)} is wanted" if command is None else answer_of(client, command, within_s=within_s)
