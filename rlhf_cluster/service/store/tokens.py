"""API tokens: made, found by their secret, revoked. Only the SHA-256 of a secret is kept."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from sqlalchemy import Connection, Row, delete, insert, or_, select, update

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
    parent: Row | None = None,
) -> tuple[Row, str]:
    """The token and its secret, which nobody can ask for again. What was opened by `parent` is revoked with it."""
    secret, token_id = new_secret("api" if kind == TOKEN else kind), new_id(kind)
    connection.execute(
        insert(tokens).values(
            token_id=token_id,
            name=name,
            secret_sha256=digest(secret),
            scopes=list(scopes),
            created_s=now_s,
            expires_s=expires_s,
            parent_id=(parent.parent_id or parent.token_id) if parent else None,
        )
    )
    return connection.execute(select(tokens).where(tokens.c.token_id == token_id)).one(), secret


def get(connection: Connection, token_id: str) -> Row | None:
    return connection.execute(select(tokens).where(tokens.c.token_id == token_id)).one_or_none()


def is_login(row: Row) -> bool:
    return row.token_id.startswith(f"{LOGIN}_")


def of_secret(connection: Connection, secret: str, *, now_s: float) -> Row | None:
    """The token, or None where there is none, or it has expired or was revoked."""
    row = of_secret_whatever_its_age(connection, secret)
    return None if row is None or is_over(row, now_s=now_s) else row


def of_secret_whatever_its_age(connection: Connection, secret: str) -> Row | None:
    """The token, also one that is over."""
    hashed = digest(secret)
    row = connection.execute(select(tokens).where(tokens.c.secret_sha256 == hashed)).one_or_none()
    return row if row is not None and hmac.compare_digest(row.secret_sha256, hashed) else None


def is_over(row: Row, *, now_s: float) -> bool:
    return row.revoked_s is not None or (row.expires_s is not None and row.expires_s <= now_s)


def used(connection: Connection, token_id: str, *, now_s: float) -> None:
    connection.execute(update(tokens).where(tokens.c.token_id == token_id).values(last_used_s=now_s))


def every(connection: Connection) -> Sequence[Row]:
    """Those that were handed out and not revoked, newest first; sessions and logins are not among them."""
    is_own = (tokens.c.revoked_s.is_(None), tokens.c.parent_id.is_(None))
    return connection.execute(select(tokens).where(*is_own).order_by(tokens.c.token_id.desc())).all()


def revoke(connection: Connection, token_id: str, *, now_s: float) -> bool:
    """With all that was opened by it. False where there is none to revoke."""
    revoking = update(tokens).where(tokens.c.revoked_s.is_(None)).values(revoked_s=now_s)
    connection.execute(revoking.where(tokens.c.parent_id == token_id))
    return connection.execute(revoking.where(tokens.c.token_id == token_id)).rowcount == 1


def trim(connection: Connection, *, before_s: float, limit: int) -> int:
    """Remove at most `limit` that expired or were revoked before; how many went."""
    over = select(tokens.c.token_id).where(or_(tokens.c.expires_s < before_s, tokens.c.revoked_s < before_s))
    return connection.execute(delete(tokens).where(tokens.c.token_id.in_(over.limit(limit)))).rowcount


def attempt_of_secret(connection: Connection, secret: str) -> Row | None:
    """The attempt whose relay has this secret."""
    hashed = digest(secret)
    row = connection.execute(select(attempts).where(attempts.c.token_sha256 == hashed)).one_or_none()
    return row if row is not None and hmac.compare_digest(row.token_sha256, hashed) else None
