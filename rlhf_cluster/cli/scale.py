"""`rlhf scale JOB_DIR rollout=3`: how many workers a running job has from now on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import click

from rlhf_cluster.cli.control import ask, job_dir_argument, within_option
from rlhf_cluster.cli.failure import Refused, Unavailable
from rlhf_cluster.cli.output import emit, output_option
from rlhf_cluster.driver import mailbox
from rlhf_cluster.errors import did_you_mean
from rlhf_cluster.records.commands import Scale

ROLES = ("rollout", "reward", "reference")


class RoleSize(click.ParamType):
    """`rollout=3` as a command."""

    name = "ROLE=N"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Scale:
        role, separator, number = value.partition("=")
        if not separator:
            self.fail(f"{value!r} has to be ROLE=N, as in rollout=3", param, ctx)
        if role not in ROLES:
            self.fail(f"{role!r}{did_you_mean(role, ROLES)}: it is one of {', '.join(ROLES)}", param, ctx)
        if not re.fullmatch("[1-9][0-9]{0,4}", number):
            self.fail(f"{value!r}: the number of workers has to be a whole number from 1 to 99999", param, ctx)
        return Scale(role=role, num_workers=int(number))


@click.command
@job_dir_argument
@click.argument("sizes", metavar="ROLE=N...", nargs=-1, required=True, type=RoleSize())
@within_option(60)
@output_option
def scale(job_dir: Path, sizes: Sequence[Scale], within_s: float, output: str) -> None:
    """Have N workers of a role from now on: rollout, reward or reference. Training does not stop for it.

    \b
    rlhf scale runs/word-world-1 rollout=3
    rlhf scale runs/word-world-1 rollout=3 reward=2 reference=2

    Without a running driver, or with one that does not answer, the command waits for it in the job directory.
    """
    roles = [size.role for size in sizes]
    if len(set(roles)) < len(roles):
        raise click.UsageError(f"each role can be given once; got {', '.join(roles)}")
    answers, failures = [], []
    for size in sizes:
        try:
            answers.append(mailbox.to_json(size) | {"answer": ask(job_dir, size, within_s=within_s)})
        except (Refused, Unavailable) as failure:
            # The others are asked for all the same: without a driver each of them waits for the next one.
            failures.append(type(failure)(f"{size.role}={size.num_workers}: {failure}"))
    if answers:
        emit(answers, output=output, text=lambda: "\n".join(line["answer"] for line in answers))
    if failures:
        kind = Unavailable if any(isinstance(failure, Unavailable) for failure in failures) else Refused
        raise kind("\n".join(map(str, failures)))
