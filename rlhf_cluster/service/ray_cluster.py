"""What Ray's dashboard says of the cluster: its nodes, what they have and what of it is used."""

from __future__ import annotations

import re
import threading
import time
from typing import Any

from rlhf_cluster.service.ray_jobs import RayAway, RayJobs, RayRefused
from rlhf_cluster.wire.access import Cluster, Node

FRESH_S = 2.0
USED = re.compile(r"^([0-9.]+)([A-Za-z]*)/([0-9.]+)([A-Za-z]*) (\S+)")
"""`3.0/16.0 CPU` and `1.2GiB/22.66GiB memory`, lines of a text that Ray makes for people."""
BYTES = {"": 1.0, "B": 1.0, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40}
MARKS = ("node:", "accelerator_type:")
"""Resources by which nodes are found; nobody wants to see how many there are."""


class ClusterView:
    """Asked by every open page, and asks Ray every two seconds at most. While one caller asks, others get what is
    known: a Ray that hangs must not hold a thread of every page."""

    def __init__(self, ray: RayJobs | None) -> None:
        self._ray = ray
        self._asking = threading.Lock()
        self._known = Cluster(address=ray.url if ray else None, is_reachable=False, reason="Ray was not asked yet")
        self._known_s = float("-inf")

    def look(self) -> Cluster:
        if self._ray is None:
            reason = "the service was started without a cluster: give --ray-address, or use `rlhf up`"
            return Cluster(address=None, is_reachable=False, reason=reason)
        if time.monotonic() - self._known_s >= FRESH_S and self._asking.acquire(blocking=False):
            try:
                self._known = read_cluster(self._ray)
                self._known_s = time.monotonic()
            finally:
                self._asking.release()
        return self._known


def read_cluster(ray: RayJobs) -> Cluster:
    """With the reason where Ray cannot be asked."""
    try:
        version = ray.get("/api/version").get("ray_version")
        nodes = ray.get("/api/v0/nodes?limit=1000")["data"]["result"]["result"]
        usage = ray.get("/nodes?view=summary")["data"].get("nodeLogicalResources") or {}
    except (RayAway, RayRefused) as error:
        return Cluster(address=ray.url, is_reachable=False, reason=str(error))
    except (KeyError, TypeError, AttributeError) as error:
        reason = f"Ray at {ray.url} answers in a form that is not known: {type(error).__name__} {error}"
        return Cluster(address=ray.url, is_reachable=False, reason=reason)
    found = [_node(each) for each in nodes]
    alive = [node for node in found if node.state == "ALIVE"]
    return Cluster(
        address=ray.url,
        is_reachable=True,
        ray_version=version,
        nodes=found,
        total=_sum(*(node.resources for node in alive)),
        used=_sum(*(used_of(usage.get(node.node_id) or "") for node in alive)),
    )


def used_of(text: str) -> dict[str, float]:
    """
    >>> used_of("3.0/16.0 CPU (1.0 used of 2.0 reserved in placement groups)\\n1.00KiB/2.00GiB memory")
    {'CPU': 3.0, 'memory': 1024.0}
    """
    found = (USED.match(line.strip()) for line in text.splitlines())
    return {match[5]: float(match[1]) * BYTES.get(match[2], 1.0) for match in found if match}


def _node(data: dict[str, Any]) -> Node:
    totals = data.get("resources_total") or {}
    resources = {name: float(amount) for name, amount in totals.items() if not name.startswith(MARKS)}
    return Node(node_id=str(data["node_id"]), state=str(data["state"]), resources=resources)


def _sum(*parts: dict[str, float]) -> dict[str, float]:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: sum(part.get(name, 0.0) for part in parts) for name in names}
