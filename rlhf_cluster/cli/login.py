"""`rlhf login URL`: a service and a token for it, remembered for the commands that follow."""

from __future__ import annotations

import sys

import click

from rlhf_cluster.cli.output import emit, output_option
from rlhf_cluster.cli.words import rights


@click.command
@click.argument("url")
@click.option("--token", envvar="RLHF_TOKEN", help="The token; asked for, or read from stdin, when left out.")
@output_option
def login(url: str, token: str | None, output: str) -> None:
    """Store URL and a token for it, in a file that only you can read, after the service has accepted both."""
    from rlhf_cluster.client import Access, Client
    from rlhf_cluster.client.access import checked_url, is_loopback, store_login

    access = Access(url=checked_url(url), token=token or _ask_for_token())
    with Client(access) as client:
        me = client.me()
    path = store_login(access)
    if access.url.startswith("http://") and not is_loopback(access.url):
        click.echo(f"Warning: without https everybody on the way to {access.url} can read the token", err=True)
    data = {"url": access.url, "stored_in": str(path), **me.model_dump(mode="json")}
    text = f"logged in to {access.url} as {me.name}, who may {rights(me.scopes)}; `rlhf logout` forgets it"
    emit(data, output=output, text=lambda: text)


def _ask_for_token() -> str:
    token = click.prompt("Token", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline()
    if not token.strip():
        raise click.UsageError("no token was given: use --token, RLHF_TOKEN or stdin")
    return token.strip()
