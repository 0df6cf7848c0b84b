"""`rlhf submit JOB`: a job for the cluster of a service."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rlhf_cluster.cli.failure import NotFound
from rlhf_cluster.cli.output import emit, output_option
from rlhf_cluster.cli.service import connected, request_of, service_options
from rlhf_cluster.errors import BadRequest, ConfigError, did_you_mean

if TYPE_CHECKING:
    from rlhf_cluster.client import Client
    from rlhf_cluster.wire.jobs import Submit

FORMATS = {".toml": "toml", ".yaml": "yaml", ".yml": "yaml"}
MAX_FILE_BYTES = 1_000_000


class Label(click.ParamType):
    """`team=search` as a pair."""

    name = "KEY=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        key, equals, text = value.partition("=")
        if not key or not equals:
            self.fail(f"{value!r} has to be KEY=VALUE, as in team=search", param, ctx)
        return key, text


@click.command
@click.argument("job")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--name", help="By which people find it; the job file's own name when left out.")
@click.option(
    "--label", "labels", multiple=True, type=Label(), help="A word of yours to find it by; can be given again."
)
@click.option("--notes", help="What somebody should know who looks at it later.")
@click.option("--max-attempts", type=click.IntRange(1, 100), help="How often it is begun at most; 3 when left out.")
@click.option(
    "--code",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Directory of the job's own Python code and data, which is sent along; .git stays here.",
)
@click.option("--wait", is_flag=True, help="Watch it until it is over; the exit code is 1 when it has not succeeded.")
@click.option("--dry-run", is_flag=True, help="Have it checked and show what it would reserve; submit nothing.")
@click.option("--idempotency-key", help="Submitted again under the same key, it is the same job.")
@service_options
@output_option
def submit(job: str, overrides: tuple[str, ...], wait: bool, dry_run: bool, output: str, **given: Any) -> int | None:
    """Submit JOB, a TOML or YAML file or a recipe's name, to the service. Settings are overridden as KEY=VALUE.

    \b
    rlhf submit word-world --wait
    rlhf submit job.toml train.num_steps=200 --name ablation-3 --label team=search --code ./src

    Its code runs on the cluster with the rights of the cluster's nodes.
    """
    from rlhf_cluster.wire.jobs import Submit

    code, key = given.pop("code"), given.pop("idempotency_key")
    fields = _source(job) | {name: value for name, value in given.items() if value is not None}
    fields |= {"labels": dict(given["labels"]), "overrides": list(overrides)}
    with connected() as client:
        if code is not None and not dry_run:
            fields["bundle_sha256"] = client.upload(code).sha256
        wanted = request_of(Submit, **fields)
        with _recipe_checked(client, wanted):
            if dry_run:
                return _show_plan(client, wanted, output=output)
            made = client.submit(wanted, idempotency_key=key)
        text = f"submitted {made.job_id} ({made.name}); `rlhf watch {made.job_id}` shows it"
        if not wait:
            return emit(made, output=output, text=lambda: text)
        from rlhf_cluster.cli.watch import watch_to_end

        click.echo(text, err=output != "table")
        return watch_to_end(client, made.job_id, output=output, shows_events=output == "table")


def _source(job: str) -> dict[str, str]:
    """A file's text, or a recipe's name: the service has the recipes."""
    path = Path(job)
    if not path.is_file():
        if path.suffix in FORMATS or "/" in job:
            raise NotFound(f"no job file is called {job!r}; `rlhf recipes list` shows the recipes")
        return {"recipe": job}
    if path.suffix not in FORMATS:
        raise ConfigError(f"{job} is no job file: its name has to end in {', '.join(FORMATS)}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{job} cannot be read: {error}") from error
    if len(text) > MAX_FILE_BYTES:
        raise ConfigError(f"{job}: {len(text)} characters; a job file has at most {MAX_FILE_BYTES}")
    return {"source": text, "format": FORMATS[path.suffix]}


@contextmanager
def _recipe_checked(client: Client, wanted: Submit) -> Generator[None]:
    """Raises `NotFound` where the service refused a recipe that it does not have."""
    try:
        yield
    except BadRequest as error:
        names = [each.name for each in client.recipes()] if wanted.recipe is not None else []
        if wanted.recipe is not None and wanted.recipe not in names:
            raise NotFound(
                f"no job file and no recipe is called {wanted.recipe!r}{did_you_mean(wanted.recipe, names)}; "
                "`rlhf recipes list` shows the recipes"
            ) from error
        raise


def _show_plan(client: Client, wanted: Submit, *, output: str) -> None:
    checked = client.check(wanted)
    emit(checked, output=output, text=lambda: "\n".join(checked.lines))
