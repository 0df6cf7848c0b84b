"""Tokens, sessions, uploads, and what the service says of itself and of the cluster."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from rlhf_cluster.wire.base import Message, Request

Scope = Literal["read", "label", "submit", "admin"]
"""Each allows what those before it do. `submit` is the right to run code on the cluster."""


class CreateToken(Request):
    name: str = Field(min_length=1, max_length=128)
    scopes: list[Scope] = Field(min_length=1)
    expires_s: float | None = None


class Token(Message):
    token_id: str
    name: str
    scopes: list[Scope]
    created_s: float
    expires_s: float | None
    last_used_s: float | None
    revoked_s: float | None


class NewToken(Token):
    secret: str
    """Shown this once."""


class OpenSession(Request):
    token: str


class LoginLink(Message):
    """An address that opens one session of the page, once."""

    url: str
    expires_s: float


class Me(Message):
    name: str
    scopes: list[Scope]


class Version(Message):
    version: str
    api: str = "v1"


class Upload(Message):
    sha256: str
    num_bytes: int


class Node(Message):
    node_id: str
    state: str
    resources: dict[str, float]


class Cluster(Message):
    """What Ray says; null where it cannot be reached, and why."""

    address: str | None
    is_reachable: bool
    reason: str = ""
    ray_version: str | None = None
    nodes: list[Node] = Field(default_factory=list)
    total: dict[str, float] = Field(default_factory=dict)
    used: dict[str, float] = Field(default_factory=dict)


class AuditEntry(Message):
    audit_id: int
    time_s: float
    who: str
    method: str
    path: str
    status: int
    request_id: str


class ServerInfo(Message):
    """What `rlhf up` writes for the commands that follow it."""

    url: str
    token: str
    process_id: int
    ray: dict[str, Any] = Field(default_factory=dict)
