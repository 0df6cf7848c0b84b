"""The Python client of a service's REST API; it needs no library that a job needs."""

from rlhf_cluster.client.access import Access, find_access
from rlhf_cluster.client.client import Client
from rlhf_cluster.client.stream import StreamMessage

__all__ = ["Access", "Client", "StreamMessage", "find_access"]
