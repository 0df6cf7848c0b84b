"""Which service is asked, and with which token: by argument, by environment, by `rlhf login`, or by `rlhf up` here.

A token is sent to no server but the one that it came with: of a pair, the token counts only where its server is asked,
or where it came without one.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from rlhf_cluster.client.private_file import private_dir, write_private
from rlhf_cluster.errors import ConfigError, ServiceAway, StorageError

SERVER, TOKEN = "RLHF_SERVER", "RLHF_TOKEN"
"""Environment variables."""
LOGIN_FILE, UP_FILE = "login.json", "server.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    url: str
    """Without a slash at the end."""
    token: str = field(default="", repr=False)
    """Empty for a service without authentication."""
    source: str = ""
    """Where the address came from, in words."""


def home_dir() -> Path:
    """Where `rlhf up`, `rlhf serve` and `rlhf login` keep their things: `$RLHF_CLUSTER_HOME/service`, or
    `~/.rlhf_cluster`."""
    home = os.environ.get("RLHF_CLUSTER_HOME")
    return Path(home).expanduser() / "service" if home else Path.home() / ".rlhf_cluster"


def find_access(server: str | None = None, token: str | None = None) -> Access:
    """Raises `ServiceAway` where nobody has said which server it is, `ConfigError` for an address that is none."""
    pairs = list(_pairs(server, token))
    url, source = next(((url, source) for url, _, source in pairs if url), ("", ""))
    if not url:
        raise ServiceAway(
            f"no server is known: `rlhf up` starts one, or --server or {SERVER} names one", code="no_server"
        )
    url = checked_url(url)
    for its_url, secret, _ in pairs:
        if secret and (not its_url or its_url.rstrip("/") == url):
            return Access(url=url, token=secret, source=source)
    return Access(url=url, source=source)


def checked_url(url: str) -> str:
    """Without the slash at its end. Raises `ConfigError` for what is no address of a server."""
    wrong = f"server = {url!r} has to be an address such as http://127.0.0.1:8420 or https://rlhf.example.org"
    try:
        parts = urlsplit(url)
        _ = parts.port  # looked at no earlier, and may be none
    except ValueError as error:
        raise ConfigError(f"{wrong}: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError(wrong)
    return url.rstrip("/")


def checked_token(token: str) -> str:
    """Without what surrounds it: files and secret stores end with a new line. Raises `ConfigError`, which does not
    show it, for what cannot be sent."""
    token = token.strip()
    if re.search(r"[^\x21-\x7e]", token):
        raise ConfigError("the token holds a space or a character that no token has: copy it once more, alone")
    return token


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def store_login(access: Access) -> Path:
    """For its owner alone, from its first byte on. Raises `StorageError`."""
    path = home_dir() / LOGIN_FILE
    try:
        private_dir(path.parent)
        write_private(path, json.dumps({"url": access.url, "token": access.token}))
    except OSError as error:
        raise StorageError(f"the login cannot be stored in {path}: {error.strerror or error}") from error
    return path


def forget_login() -> str | None:
    """The address whose login was stored; None where none was."""
    path = home_dir() / LOGIN_FILE
    if not path.exists():
        return None
    url, _ = _stored(path)
    path.unlink(missing_ok=True)
    return url


def _pairs(server: str | None, token: str | None) -> Iterator[tuple[str, str, str]]:
    """Address, token and source, in the order in which they count."""
    yield server or "", "", "--server"
    yield "", token or "", "--token"
    yield os.environ.get(SERVER, ""), os.environ.get(TOKEN, ""), SERVER
    for name, source in ((LOGIN_FILE, "rlhf login"), (UP_FILE, "rlhf up")):
        yield *_stored(home_dir() / name), source


def _stored(path: Path) -> tuple[str, str]:
    """Address and token; two empty texts where nothing is stored that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "", ""
    found = content if isinstance(content, dict) else {}
    return str(found.get("url") or ""), str(found.get("token") or "")
