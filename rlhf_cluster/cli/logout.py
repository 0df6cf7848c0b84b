"""`rlhf logout`: forget what `rlhf login` has stored."""

from __future__ import annotations

import click

from rlhf_cluster.cli.output import emit, output_option


@click.command
@output_option
def logout(output: str) -> None:
    """Forget the token that `rlhf login` has stored. The token stays valid until it is revoked or expires."""
    from rlhf_cluster.client.access import forget_login

    url = forget_login()
    text = f"logged out of {url}" if url is not None else "no login was stored"
    emit({"url": url}, output=output, text=lambda: text)
