"""The API server as a process: it listens, serves until it is told to end, and lets requests finish."""

from __future__ import annotations

import logging
import signal
import socket
import time

import uvicorn

from rlhf_cluster.client.private_file import private_dir, read_private, write_private
from rlhf_cluster.errors import ConfigError
from rlhf_cluster.service import json_log
from rlhf_cluster.service.app import create_app
from rlhf_cluster.service.hub import Hub
from rlhf_cluster.service.processes import REST
from rlhf_cluster.service.settings import ServiceSettings
from rlhf_cluster.service.store import tokens
from rlhf_cluster.service.store.database import Database

ADMIN_TOKEN = "admin.token"
"""In the data directory, readable by its owner alone."""
GRACE_S = 10
"""For requests that are under way when the server is told to end."""

log = logging.getLogger(__name__)


def serve(settings: ServiceSettings) -> None:
    """Until SIGTERM or SIGINT. Raises `ConfigError` and `StorageError` where it cannot begin."""
    json_log.set_up()
    private_dir(settings.data_dir)
    with listen(settings.host, settings.port) as listener:
        settings = settings.model_copy(update={"port": listener.getsockname()[1]})
        app = create_app(settings)
        ensure_admin_token(app.state.service.db, settings)
        _warn(settings)
        log.info("serving %s", settings.url)
        config = uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=GRACE_S
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            # The server has its own handlers while it runs, and afterwards sends itself what it was sent.
            signal.signal(number, lambda *_: None)
        signal.signal(REST, lambda *_: app.state.service.reconciler.rest())
        Server(config, app.state.service.hub).run(sockets=[listener])


class Server(uvicorn.Server):
    """Ends the event streams before it waits for the requests that are under way: no stream ends by itself."""

    def __init__(self, config: uvicorn.Config, hub: Hub) -> None:
        super().__init__(config)
        self._hub = hub

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._hub.close()
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """Bound before anything else is begun, so that a port that is taken is told in words. 0 is any free one."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=1024)
    except OSError as error:
        hint = "give another --port, or end what listens there" if error.strerror else "give another --host"
        raise ConfigError(f"{host}:{port} cannot be listened on ({error.strerror or error}): {hint}") from error


def ensure_admin_token(db: Database, settings: ServiceSettings) -> None:
    """The first start of a service makes the token from which all others come. One that was revoked stays so."""
    path, now_s = settings.data_dir / ADMIN_TOKEN, time.time()
    with db.writing() as connection:
        if any("admin" in row.scopes and row.expires_s is None for row in tokens.every(connection)):
            if read_private(path) is None:
                log.info("%s is not there, and other admin tokens are valid: no new one is made", path)
            return
        _, secret = tokens.add(connection, name="admin", scopes=["admin"], now_s=now_s)
        write_private(path, f"{secret}\n")
    log.info("an admin token was made; it is in %s", path)


def _warn(settings: ServiceSettings) -> None:
    if settings.host in ("0.0.0.0", "::") and settings.public_url is None:
        log.warning(
            "drivers on other nodes cannot reach %s: give --public-url the address by which they can", settings.url
        )
    if settings.ray_jobs_url is None:
        log.warning("jobs stay queued: no cluster was named with --ray-address")
    if not settings.auth:
        log.warning("authentication is off: every process of this machine may run code on the cluster")
