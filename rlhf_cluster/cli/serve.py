"""`rlhf serve`: the API server alone, in the foreground, for whoever supervises processes."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import click

from rlhf_cluster.cli.failure import missing_package
from rlhf_cluster.errors import ConfigError


@click.command
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="RLHF_DATA_DIR",
    help="Where it keeps database, uploads, jobs and its admin token; as `rlhf up` when left out.",
)
@click.option("--host", default="127.0.0.1", show_default=True, envvar="RLHF_HOST", help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8420, show_default=True, envvar="RLHF_PORT", help="Port."
)
@click.option(
    "--database", envvar="RLHF_DATABASE", help="postgresql://USER@HOST/NAME; SQLite in --data-dir without it."
)
@click.option(
    "--jobs-dir",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="RLHF_JOBS_DIR",
    help="Directories of jobs, seen by every node that may run a driver; in --data-dir when left out.",
)
@click.option(
    "--ray-address",
    "ray_jobs_url",
    envvar="RLHF_RAY_ADDRESS",
    help="Dashboard of the Ray cluster, such as http://127.0.0.1:8265; its token is read from RAY_AUTH_TOKEN.",
)
@click.option(
    "--driver-cpus",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    envvar="RLHF_DRIVER_CPUS",
    help="CPUs that the driver of a job reserves; 0 runs all drivers on Ray's head.",
)
@click.option("--public-url", envvar="RLHF_PUBLIC_URL", help="Under which drivers and browsers reach it.")
@click.option("--root-path", default="", envvar="RLHF_ROOT_PATH", help="Where a proxy has put it, such as /rlhf.")
@click.option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    envvar="RLHF_ALLOWED_HOSTS",
    help="A host name, beside its own, under which browsers may ask; can be given again.",
)
@click.option("--insecure-no-auth", is_flag=True, help="Let everybody on this machine in; on a loopback address only.")
def serve(data_dir: Path | None, insecure_no_auth: bool, **given: Any) -> None:
    """Serve the API and the page until SIGTERM. Logs are JSON lines on stderr.

    The first start makes an admin token, in admin.token of the data directory.
    """
    needs_service("fastapi")
    from pydantic import ValidationError

    from rlhf_cluster.client.access import home_dir
    from rlhf_cluster.service.serve import serve as serve_api
    from rlhf_cluster.service.settings import ServiceSettings

    try:
        settings = ServiceSettings(
            data_dir=(data_dir or home_dir()).expanduser().absolute(),
            auth=not insecure_no_auth,
            ray_token=ray_token(),
            **given,
        )
    except ValidationError as error:
        raise ConfigError("; ".join(each["msg"].removeprefix("Value error, ") for each in error.errors())) from error
    serve_api(settings)


def needs_service(*modules: str) -> None:
    """The light client comes without what a server needs. Raises `ConfigError` with what to install."""
    for name in modules:
        missing = missing_package(name)
        if missing is not None and importlib.util.find_spec(name) is None:
            raise missing


def ray_token() -> str | None:
    """Of a cluster that is named, from where Ray itself looks for it."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None
