"""The Ray cluster that jobs run on, as its dashboard tells of it."""

from __future__ import annotations

from fastapi import APIRouter, Request

from rlhf_cluster.service.auth import Reader
from rlhf_cluster.wire.access import Cluster

router = APIRouter(tags=["cluster"])


@router.get("/cluster")
def show_cluster(request: Request, caller: Reader) -> Cluster:
    """A cluster that cannot be reached is an answer too, with the reason."""
    return request.app.state.service.cluster.look()
