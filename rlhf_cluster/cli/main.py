"""`rlhf`: the table of verbs and the program's one entry point.

A verb's module is imported when that verb is called, so `rlhf --help` and a usage error answer without loading
anything that a job needs.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

from rlhf_cluster import __version__
from rlhf_cluster.cli import failure
from rlhf_cluster.errors import RlhfError

VERBS: dict[str, tuple[str, str]] = {
    "run": ("rlhf_cluster.cli.run:run", "Run a job here, on the local runtime or on Ray."),
    "submit": ("rlhf_cluster.cli.submit:submit", "Submit a job to the service."),
    "list": ("rlhf_cluster.cli.list:list_jobs", "List the jobs of the service."),
    "show": ("rlhf_cluster.cli.show:show", "Show all that is known of a job."),
    "watch": ("rlhf_cluster.cli.watch:watch", "Show a job live, until it is over."),
    "status": ("rlhf_cluster.cli.status:status", "Show a job, its workers and what it waits for; or the service."),
    "workers": ("rlhf_cluster.cli.workers:workers", "Show the pools of a job and every worker."),
    "logs": ("rlhf_cluster.cli.logs:logs", "Print what the processes of a job write."),
    "metrics": ("rlhf_cluster.cli.metrics:metrics", "Show what a job measures, as figures or curves."),
    "samples": ("rlhf_cluster.cli.samples:samples", "Show completions of a job with their rewards."),
    "compare": ("rlhf_cluster.cli.compare:compare", "Compare the settings and figures of jobs."),
    "scale": ("rlhf_cluster.cli.scale:scale", "Change how many workers a running job has."),
    "drain": ("rlhf_cluster.cli.drain:drain", "Retire one worker of a running job; its work is handed over."),
    "restart": ("rlhf_cluster.cli.restart:restart", "Have another worker take the place of one of a running job."),
    "pause": ("rlhf_cluster.cli.pause:pause", "Let a running job send out no new prompts."),
    "resume": ("rlhf_cluster.cli.resume:resume", "Go on with a job that was paused, stopped or killed."),
    "checkpoint": ("rlhf_cluster.cli.checkpoint:checkpoint", "Let a running job write a checkpoint."),
    "stop": ("rlhf_cluster.cli.stop:stop", "End a running job after the step under way, with a checkpoint."),
    "cancel": ("rlhf_cluster.cli.cancel:cancel", "End a job of the service, gently; do not wait for it."),
    "kill": ("rlhf_cluster.cli.kill:kill", "End a job of the service at once."),
    "retry": ("rlhf_cluster.cli.retry:retry", "Go on with a job of the service that failed or was cancelled."),
    "clone": ("rlhf_cluster.cli.clone:clone", "Submit a job of the service once more, from the beginning."),
    "label": ("rlhf_cluster.cli.label:label", "Have people say which of two answers is better."),
    "up": ("rlhf_cluster.cli.up:up", "Start the service on this machine, with a Ray of its own."),
    "down": ("rlhf_cluster.cli.down:down", "End the service of this machine."),
    "serve": ("rlhf_cluster.cli.serve:serve", "Serve the API and the page, in the foreground."),
    "login": ("rlhf_cluster.cli.login:login", "Remember a service and a token for it."),
    "logout": ("rlhf_cluster.cli.logout:logout", "Forget the token that `rlhf login` has stored."),
    "whoami": ("rlhf_cluster.cli.whoami:whoami", "Show which service is asked, and as whom."),
    "token": ("rlhf_cluster.cli.token:token", "Make, list and revoke tokens for the service."),
    "cluster": ("rlhf_cluster.cli.cluster:cluster", "Show the Ray cluster of the service."),
    "openapi": ("rlhf_cluster.cli.openapi:openapi", "Print the description of the REST API."),
    "audit": ("rlhf_cluster.cli.audit:audit", "Prove from its ledger that a job lost and repeated no prompt."),
    "replay": ("rlhf_cluster.cli.replay:replay", "Compute a step of a job once more and compare its loss."),
    "plan": ("rlhf_cluster.cli.plan:plan", "Show a job's batch arithmetic and placement; start nothing."),
    "pipeline": ("rlhf_cluster.cli.pipeline:pipeline", "Run stages that feed each other; show a model's lineage."),
    "eval": ("rlhf_cluster.cli.eval:evaluate", "Run a job's held-out evaluation only."),
    "report": ("rlhf_cluster.cli.report:report", "Compare evaluations in a table and on a page."),
    "chat": ("rlhf_cluster.cli.chat:chat", "Talk to a checkpoint, streamed."),
    "export": ("rlhf_cluster.cli.export:export", "Make a model of its own of a checkpoint, adapters merged."),
    "recipes": ("rlhf_cluster.cli.recipes:recipes", "List and show the jobs that ship with this package."),
    "data": ("rlhf_cluster.cli.data:data", "Show what a job's data gives; convert files of preferences."),
    "models": ("rlhf_cluster.cli.models:models", "List and add models that jobs can name."),
    "doctor": ("rlhf_cluster.cli.doctor:doctor", "Check this machine; every finding names its fix."),
    "schema": ("rlhf_cluster.cli.schema:schema", "Print the JSON Schema of a job file."),
}
"""Verb -> (where its command is, one line of help)."""


class Verbs(click.Group):
    """The group of `VERBS`; it knows their names and help lines without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module_name, _, attribute = VERBS[cmd_name][0].partition(":")
        return getattr(importlib.import_module(module_name), attribute)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in VERBS and not args[0].startswith("-"):
            raise click.exceptions.NoSuchCommand(args[0], possibilities=VERBS, ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, help_line) for verb, (_, help_line) in VERBS.items()])


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rlhf")
def rlhf() -> None:
    """Reinforcement learning from human feedback, on a laptop or a cluster.

    JOB is the id of a job of the service, the beginning of one, a name, @last, or the directory of a job that runs
    without a service. Exit codes: 0 done, 1 the job failed or refused, 2 wrong usage or configuration, 3 not found, 4
    not allowed, 5 no driver or no service answers, 6 a guard ended the job, 130 interrupted. RLHF_DEBUG=1 shows
    tracebacks.
    """


def main() -> None:
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code. Only errors that nobody foresaw leave as exceptions."""
    as_json = failure.wants_json(arguments)
    try:
        returned = rlhf.main(args=list(arguments) or ["--help"], prog_name="rlhf", standalone_mode=False)
    except (click.ClickException, click.Abort, RlhfError) as error:
        return failure.report(error, as_json=as_json)
    except ModuleNotFoundError as error:
        if (missing := failure.missing_package(error.name or "")) is None:
            raise
        return failure.report(missing, as_json=as_json)
    return returned if isinstance(returned, int) else failure.DONE
