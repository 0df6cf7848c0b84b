"""The checks of `rlhf doctor` for whoever runs a service here: its data, port, page, database and Ray cluster."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import stat
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from rlhf_cluster.cli.checks import GIB, Check
from rlhf_cluster.cli.failure import EXTRAS
from rlhf_cluster.errors import ConfigError, StorageError

LEAST_DATA_BYTES = 2 * GIB
READY_S = 5.0


def service_checks(data_dir: Path, *, database: str | None, ray_address: str | None) -> Iterator[Check]:
    """On a machine with the client alone that is all there is to say."""
    missing = [name for name in EXTRAS["service"] if importlib.util.find_spec(name) is None]
    if missing:
        found = f"a client only, without {', '.join(missing)}; for `rlhf up`: pip install 'rlhf-cluster[service]'"
        yield Check(name="service", status="ok", found=found)
        return
    from rlhf_cluster.client.private_file import read_private
    from rlhf_cluster.service.up import SERVER

    content = read_private(data_dir / SERVER)
    running: dict[str, Any] = json.loads(content) if content else {}
    yield data(data_dir)
    yield secrets(data_dir)
    yield answers(running["url"]) if running else port()
    yield page()
    yield tables(data_dir, database)
    yield ray_cluster(ray_address, running.get("ray", {}))


def data(data_dir: Path) -> Check:
    place = next(path for path in (data_dir, *data_dir.parents) if path.exists())
    if not os.access(place, os.W_OK):
        return Check(
            name="service data", status="fail", found=f"{place} is not writable", fix="give another --data-dir"
        )
    free = shutil.disk_usage(place).free
    found = f"{data_dir} can be written, {free / GIB:.0f} GiB free"
    if free < LEAST_DATA_BYTES:
        fix = "free space, or give another --data-dir: samples, logs and checkpoints of all jobs go there"
        return Check(name="service data", status="warn", found=found, fix=fix)
    return Check(name="service data", status="ok", found=found)


def secrets(data_dir: Path) -> Check:
    """Whoever reads them runs code on the cluster."""
    from rlhf_cluster.service.up import ADMIN_TOKEN, RAY_TOKEN, SERVER, STATE

    files = [data_dir / name for name in (ADMIN_TOKEN, RAY_TOKEN, SERVER, STATE)]
    there = [path for path in files if path.exists()]
    open_ones = [str(path) for path in there if stat.S_IMODE(path.stat().st_mode) & 0o077]
    if open_ones:
        fix = f"chmod 600 {' '.join(open_ones)}, and make new tokens: `rlhf token create`, `rlhf token revoke`"
        return Check(name="service auth", status="fail", found=f"others can read {', '.join(open_ones)}", fix=fix)
    found = "its tokens are readable by their owner alone" if there else "the first start makes an admin token"
    return Check(name="service auth", status="ok", found=found)


def port() -> Check:
    from rlhf_cluster.service.up import DEFAULT_PORT

    try:
        socket.create_server(("127.0.0.1", DEFAULT_PORT)).close()
    except OSError as error:
        found = f"{DEFAULT_PORT} cannot be listened on ({os.strerror(error.errno or 0)})"
        fix = "`rlhf up` takes another one by itself; `rlhf serve` needs --port"
        return Check(name="service port", status="warn", found=found, fix=fix)
    return Check(name="service port", status="ok", found=f"{DEFAULT_PORT} is free")


def answers(url: str) -> Check:
    """Of a service that `rlhf up` has started."""
    import httpx

    try:
        answer = httpx.get(f"{url}/readyz", timeout=READY_S, trust_env=False)
    except httpx.HTTPError as error:
        found, fix = f"{url} does not answer ({error})", "`rlhf up` starts it again"
        return Check(name="service port", status="fail", found=found, fix=fix)
    if answer.status_code != 200:
        found, fix = f"{url} is not ready: {answer.text[:200]}", "see logs/server.log in its data directory"
        return Check(name="service port", status="fail", found=found, fix=fix)
    return Check(name="service port", status="ok", found=f"the service answers at {url}")


def page() -> Check:
    from rlhf_cluster.service.api.page import STATIC

    if (STATIC / "index.html").is_file():
        return Check(name="page", status="ok", found="built")
    fix = "npm ci && npm run build in the folder page of a checkout, or install a package without RLHF_SKIP_PAGE=1"
    return Check(name="page", status="warn", found="not built; the API and the command line do without", fix=fix)


def tables(data_dir: Path, database: str | None) -> Check:
    from rlhf_cluster.service.settings import ServiceSettings
    from rlhf_cluster.service.store.database import Database

    settings = ServiceSettings(data_dir=data_dir, database=database)
    if database is None and not Path(settings.database_url.removeprefix("sqlite:///")).exists():
        return Check(name="database", status="ok", found="SQLite, which the first start makes in the data directory")
    try:
        with contextlib.closing(Database(settings.database_url)) as opened:
            kind, is_current = opened.engine.dialect.name, opened.is_current()
    except (ConfigError, StorageError) as error:
        fix = "start it, or mend --database (RLHF_DATABASE): postgresql://USER@HOST/NAME"
        return Check(name="database", status="fail", found=str(error), fix=fix)
    state = "its tables are this version's" if is_current else "the next start of the service brings its tables up"
    return Check(name="database", status="ok", found=f"{kind} answers; {state}")


def ray_cluster(address: str | None, private: dict[str, Any]) -> Check:
    """The one that is named, else the private one of `rlhf up`."""
    from rlhf_cluster.cli.serve import ray_token
    from rlhf_cluster.client.private_file import read_private
    from rlhf_cluster.service.ray_cluster import read_cluster
    from rlhf_cluster.service.ray_jobs import RayJobs

    url = address or private.get("url")
    if not url:
        return Check(name="ray cluster", status="ok", found="none is named; `rlhf up` starts one of its own")
    token = ray_token() if address else read_private(Path(private["token_file"]))
    with contextlib.closing(RayJobs(url, token=token)) as ray:
        found = read_cluster(ray)
    if not found.is_reachable:
        fix = "mend --ray-address (RLHF_RAY_ADDRESS), its dashboard's address, or RAY_AUTH_TOKEN"
        return Check(name="ray cluster", status="fail", found=found.reason, fix=fix if address else "`rlhf up`")
    here = _version_here()
    if here is not None and found.ray_version not in (None, here):
        text = f"Ray {found.ray_version} at {url}, and {here} here"
        fix = f"pip install 'ray[default]=={found.ray_version}' here, or {here} on the cluster: drivers need the same"
        return Check(name="ray cluster", status="warn", found=text, fix=fix)
    return Check(name="ray cluster", status="ok", found=f"Ray {found.ray_version} at {url}")


def _version_here() -> str | None:
    try:
        return metadata.version("ray")
    except metadata.PackageNotFoundError:
        return None
