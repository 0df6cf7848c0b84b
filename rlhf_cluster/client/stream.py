"""The event stream of a service (server-sent events), read without an end: it comes back by itself after the last event
that was seen, however often the connection breaks."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rlhf_cluster.client.connection import Connection
from rlhf_cluster.errors import ServiceAway

READ_S = 45.0
"""The service says something at least every 15 seconds."""
PATIENCE_S = 300.0
MAX_WAIT_S = 10.0
RESYNC = "resync"
"""Topic with which the service says that it does not have any more what was asked for: read everything anew."""
OPENED, STILL_THERE = "opened", "still there"
"""Topics of our own: connected, perhaps anew, so that something may have been missed; and a sign of life."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamMessage:
    topic: str
    """`jobs`, `metrics`, `workers` or `logs`, whatever else the service tells of, or one of those above."""
    event_id: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


def follow(
    connection: Connection, *, job_id: str | None, topics: Iterable[str], patience_s: float = PATIENCE_S
) -> Iterator[StreamMessage]:
    """From now on, until the caller goes. Raises `ServiceAway` when the service was away for `patience_s`, and what it
    refuses at once."""
    query = {"job_id": job_id, "topics": ",".join(topics)}
    last_id, failures, heard_s = "", 0, time.monotonic()
    while True:
        away: ServiceAway | None = None
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_id} if last_id else {})}
        try:
            with connection.streaming("/events/stream", query=query, headers=headers, read_s=READ_S) as lines:
                for number, message in enumerate(parse(lines)):
                    last_id, failures, heard_s = message.event_id or last_id, 0, time.monotonic()
                    if number == 0:  # the service has said from where on it tells; nothing is missed after this
                        yield StreamMessage(topic=OPENED)
                    yield message
        except ServiceAway as error:
            away = error
        if time.monotonic() - heard_s > patience_s:  # also where streams are opened, and end before they begin
            silent = f"the service at {connection.access.url} opens event streams and tells nothing"
            raise away or ServiceAway(silent, code="unreachable")
        time.sleep(min(0.25 * 2**failures, MAX_WAIT_S))
        failures += 1


def parse(lines: Iterable[str]) -> Iterator[StreamMessage]:
    """Messages of a stream's lines. One without data moves the place all the same; one that was cut off is none."""
    topic, event_id, data = "", "", []
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "" if not line:
                kind = (topic or "message") if data else STILL_THERE
                yield StreamMessage(topic=kind, event_id=event_id, data=_object("\n".join(data)))
                topic, event_id, data = "", "", []
            case "event":
                topic = value
            case "id":
                event_id = value
            case "data":
                data.append(value)


def _object(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
