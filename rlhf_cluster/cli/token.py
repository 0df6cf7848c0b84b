"""`rlhf token create|list|revoke`: the tokens by which people and programs use a service."""

from __future__ import annotations

import re
import time

import click

from rlhf_cluster.cli.output import emit, output_option, table
from rlhf_cluster.cli.service import connected, request_of, service_options
from rlhf_cluster.cli.words import ago, moment
from rlhf_cluster.driver.observers.excerpt import excerpt

SCOPES = ("read", "label", "submit", "admin")
UNITS_S = {"m": 60.0, "h": 3600.0, "d": 86_400.0}


class Span(click.ParamType):
    """`30d`, `12h` or `90m`, in seconds."""

    name = "SPAN"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch("([1-9][0-9]{0,5})([mhd])", value)
        if found is None:
            self.fail(f"{value!r} has to be a number of days, hours or minutes, as in 30d, 12h or 90m", param, ctx)
        return int(found[1]) * UNITS_S[found[2]]


@click.group
def token() -> None:
    """Tokens for a service; only an admin makes them. The scope `submit` is the right to run code on the cluster."""


@token.command("create")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(SCOPES),
    default=("read",),
    show_default=True,
    help="What it allows, each including those before it; can be given again.",
)
@click.option("--expires", "lasts_s", type=Span(), help="After which it is no longer valid; never when left out.")
@service_options
@output_option
def create_token(name: str, scopes: tuple[str, ...], lasts_s: float | None, output: str) -> None:
    """Make a token called NAME and print its secret, which is shown this once."""
    from rlhf_cluster.wire.access import CreateToken

    expires_s = None if lasts_s is None else time.time() + lasts_s
    with connected() as client:
        wanted = request_of(CreateToken, name=name, scopes=scopes, expires_s=expires_s)
        made = client.create_token(wanted)
    emit(made, output=output, text=lambda: made.secret)


@token.command("list")
@service_options
@output_option
def list_tokens(output: str) -> None:
    """List the tokens that are not revoked; their secrets are known to nobody."""
    with connected() as client:
        found = client.tokens()
    now_s = time.time()
    rows = [
        [
            each.token_id,
            excerpt(each.name, width=32),
            ", ".join(each.scopes),
            moment(each.created_s),
            moment(each.expires_s) or "never",
            ago(each.last_used_s, now_s=now_s) or "never",
        ]
        for each in found
    ]
    emit(found, output=output, text=lambda: table(["token", "name", "scopes", "made", "expires", "last used"], rows))


@token.command("revoke")
@click.argument("token_id")
@service_options
@output_option
def revoke_token(token_id: str, output: str) -> None:
    """Make a token worthless; TOKEN_ID is what `rlhf token list` shows."""
    with connected() as client:
        client.revoke_token(token_id)
    emit({"revoked": token_id}, output=output, text=lambda: f"revoked {token_id}")
