"""What Ray's autoscaler does, where the cluster has one: asked of Ray's own record of the cluster.

Only the second generation of the autoscaler writes there; with another, or with none, nobody is said to add nodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import ray
from ray._raylet import GcsClient  # ty: ignore[missing-module-member]  Compiled, without a stub.
from ray.core.generated import autoscaler_pb2
from ray.exceptions import RpcError

ASK_S = 5.0


def is_at_work() -> bool:
    """Whether nodes may be added to the cluster that this process is connected to."""
    return _state().autoscaler_state_version > 0


def what_it_does_for(wanted: Mapping[str, float]) -> str:
    """In words, of an actor that no node has room for; empty where there is no autoscaler."""
    state = _state()
    if not state.autoscaler_state_version:
        return ""
    coming = Counter(each.ray_node_type_name for each in state.pending_instances)
    for each in state.pending_instance_requests:
        coming[each.ray_node_type_name] += each.count
    is_full = any(dict(each.resources_bundle) == dict(wanted) for each in state.infeasible_resource_requests)
    if coming:
        text = ", ".join(f"{count} of kind {kind!r}" for kind, count in coming.items())
        return f"its autoscaler is starting {text}" + (", and may start no more" if is_full else "")
    if is_full:
        return "its autoscaler can add none: no kind of node has so many, or it may start no more of them"
    if state.failed_instance_requests:
        failed = max(state.failed_instance_requests, key=lambda each: each.failed_ts)
        return f"its autoscaler could not start one of kind {failed.ray_node_type_name!r}: {failed.reason}"
    return "its autoscaler has been asked for one"


def _state() -> Any:
    """Its `AutoscalingState`; empty where Ray cannot be asked now, which the driver has its own ways to notice."""
    messages: Any = autoscaler_pb2  # generated too
    reply = messages.GetClusterStatusReply()
    try:
        reply.ParseFromString(GcsClient(ray.get_runtime_context().gcs_address).get_cluster_status(timeout_s=ASK_S))
    except RpcError:
        return messages.AutoscalingState()
    return reply.autoscaling_state
