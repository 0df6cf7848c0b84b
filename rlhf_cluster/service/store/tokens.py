"""API tokens: made, found by their secret, revoked. Only the SHA-256 of a secret is kept."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from sqlalchemy import Connection, Row, insert, select, update

from rlhf_cluster.service.ids import digest, new_id, new_secret
from rlhf_cluster.service.store.tables import attempts, tokens

USED_EVERY_S = 60.0
"""A use is noted no more often than this: reading must not mean writing."""
TOKEN, LOGIN = "tok", "login"
"""Kinds, by which ids begin. A login is good for opening one session and for nothing else."""


def add(
    connection: Connection,
    *,
    name: str,
    scopes: Sequence[str],
    now_s: float,
    expires_s: float | None = None,
    kind: str = TOKEN,
) -> tuple[Row, str]:
    """The token and its secret, which nobody can ask for again."""
    secret, token_id = new_secret("api" if kind == TOKEN else kind), new_id(kind)
    connection.execute(
        insert(tokens).values(
            token_id=token_id,
            name=name,
            secret_sha256=digest(secret),
            scopes=list(scopes),
            created_s=now_s,
            expires_s=expires_s,
        )
    )
    return connection.execute(select(tokens).where(tokens.c.token_id == token_id)).one(), secret


def get(connection: Connection, token_id: str) -> Row | None:
    return connection.execute(select(tokens).where(tokens.c.token_id == token_id)).one_or_none()


def is_login(row: Row) -> bool:
    return row.token_id.startswith(f"{LOGIN}_")


def of_secret(connection: Connection, secret: str, *, now_s: float) -> Row | None:
    """The token, or None where there is none, or it has expired or was revoked."""
    hashed = digest(secret)
    row = connection.execute(select(tokens).where(tokens.c.secret_sha256 == hashed)).one_or_none()
    if row is None or not hmac.compare_digest(row.secret_sha256, hashed):
        return None
    is_over = row.revoked_s is not None or (row.expires_s is not None and row.expires_s <= now_s)
    return None if is_over else row


def used(connection: Connection, token_id: str, *, now_s: float) -> None:
    connection.execute(update(tokens).where(tokens.c.token_id == token_id).values(last_used_s=now_s))


def every(connection: Connection) -> Sequence[Row]:
    """Those not revoked, newest first."""
    return connection.execute(
        select(tokens).where(tokens.c.revoked_s.is_(None)).order_by(tokens.c.token_id.desc())
    ).all()


def revoke(connection: Connection, token_id: str, *, now_s: float) -> bool:
    """False where there is none to revoke."""
    done = connection.execute(
        update(tokens).where(tokens.c.token_id == token_id, tokens.c.revoked_s.is_(None)).values(revoked_s=now_s)
    )
    return done.rowcount == 1


def attempt_of_secret(connection: Connection, secret: str) -> Row | None:
    """The attempt whose relay has this secret."""
    hashed = digest(secret)
    row = connection.execute(select(attempts).where(attempts.c.token_sha256 == hashed)).one_or_none()
    return row if row is not None and hmac.compare_digest(row.token_sha256, hashed) else None
