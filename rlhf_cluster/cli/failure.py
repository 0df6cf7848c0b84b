"""How the command line tells that something went wrong: the exit code, and one message on stderr."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from typing import Any

import click

from rlhf_cluster.errors import (
    BadRequest,
    ConfigError,
    DataError,
    Interrupted,
    ModelError,
    NotAuthorized,
    NotOnService,
    RlhfError,
    RoleError,
    ServiceAway,
    ServiceError,
)

DONE, JOB_FAILED, USAGE, NOT_FOUND, AUTH, UNAVAILABLE, BY_GUARD, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 130


class NotFound(RlhfError):
    """A job file, recipe, model or checkpoint that was named does not exist."""


class Unavailable(RlhfError):
    """No driver is there to answer, or it did not answer in time."""


class Refused(RlhfError):
    """The driver answered no."""


class Detached(Interrupted):
    """Ctrl-C while something was watched, which goes on; the message says how to watch it again."""


EXTRAS = {
    "service": ("alembic", "fastapi", "prometheus_client", "psycopg", "sqlalchemy", "starlette", "uvicorn"),
    "cpu": (
        *(
            "datasets",
            "gguf",
            "jinja2",
            "matplotlib",
            "pebble",
            "peft",
            "pyarrow",
            "ray",
            "safetensors",
            "tensorboardX",
        ),
        *("tokenizers", "torch", "transformers", "vaderSentiment", "vllm", "xxhash"),
    ),
}
"""Extra -> packages that come with it. Without extras this package is a client."""
EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (NotFound, NOT_FOUND),
    (NotOnService, NOT_FOUND),
    (NotAuthorized, AUTH),
    (Unavailable, UNAVAILABLE),
    (ServiceAway, UNAVAILABLE),
    (BadRequest, USAGE),
    (Interrupted, INTERRUPTED),
    (click.Abort, INTERRUPTED),
    (ConfigError, USAGE),
    (DataError, USAGE),
    (ModelError, USAGE),
    (click.UsageError, USAGE),
)
"""The first type that fits decides; anything else is a job that failed."""


def report(error: Exception, *, as_json: bool) -> int:
    """Tell `error` on stderr, as text or as one JSON object, and return the exit code."""
    if isinstance(error, RlhfError) and os.environ.get("RLHF_DEBUG") == "1":
        raise error
    if as_json:
        click.echo(json.dumps({"error": as_dict(error)}), err=True)
    elif isinstance(error, click.ClickException):
        error.show()
    else:
        prefix = "" if isinstance(error, Detached) else "Error: "
        click.echo("\n".join([f"{prefix}{message(error)}", *_notes(error)]), err=True)
    return exit_code(error)


def missing_package(module: str) -> ConfigError | None:
    """What to install, where it belongs to a package of one of our extras."""
    name = module.partition(".")[0]
    extra = next((extra for extra, names in EXTRAS.items() if name in names), None)
    if extra is None:
        return None
    also = ", or [gpu]" if extra == "cpu" else ""
    return ConfigError(f"{name} is not installed here: pip install 'rlhf-cluster[{extra}]'{also}")


def exit_code(error: Exception) -> int:
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), JOB_FAILED)


def message(error: Exception) -> str:
    if isinstance(error, click.ClickException):
        return error.format_message()
    return "interrupted" if isinstance(error, click.Abort) else str(error) or type(error).__name__


def as_dict(error: Exception) -> dict[str, Any]:
    described: dict[str, Any] = {
        "type": type(error).__name__,
        "message": message(error),
        "exit_code": exit_code(error),
    }
    if _notes(error):
        described["notes"] = _notes(error)
    if isinstance(error, RoleError):
        described |= {"role": error.role, "worker_id": error.worker_id, "activity": error.activity}
    if isinstance(error, ServiceError):
        described |= {"status": error.status, "code": error.code, "request_id": error.request_id}
    return described


def _notes(error: Exception) -> list[str]:
    return list(getattr(error, "__notes__", []))


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether `-o json` or `-o jsonl` is among the arguments; needed before they are parsed, as parsing may be what
    fails."""
    kinds = ("json", "jsonl")
    joined = {f"{option}{kind}" for option in ("-o", "-o=", "--output=") for kind in kinds}
    spaced = {(option, kind) for option in ("-o", "--output") for kind in kinds}
    return bool(joined & set(arguments)) or bool(spaced & set(itertools.pairwise(arguments)))
