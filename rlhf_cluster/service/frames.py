"""Server-sent events as bytes: what an event stream is made of.

A message with an `id` moves the place from which a client goes on after a break, also where it has no data. The text
is ASCII, so that no client takes a line separator of Unicode for the end of a line.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from sqlalchemy import Row

from rlhf_cluster.wire.figures import Event

RETRY_MS = 2000
"""After a break a browser waits so long before it comes again."""


@dataclass(frozen=True, slots=True)
class Framed:
    """An event, encoded once for everybody."""

    event_id: int
    topic: str
    job_id: str
    frame: bytes


def framed(row: Row) -> Framed:
    event = Event.model_validate(row)
    data = event.model_dump_json(ensure_ascii=True)
    return Framed(
        event.event_id,
        event.topic,
        event.job_id,
        f"event: {event.topic}\nid: {event.event_id}\ndata: {data}\n\n".encode(),
    )


def opening(place: int | None) -> bytes:
    """The first message; a client that asked for no place is told the one at which it begins."""
    at = "" if place is None else f"id: {place}\n"
    return f"retry: {RETRY_MS}\n{at}\n".encode()


def note(topic: str, job_id: str) -> bytes:
    """Of something that is no event and comes again: it has no id, and is not repeated after a break."""
    return f"event: {topic}\ndata: {json.dumps({'job_id': job_id})}\n\n".encode()


def resync(place: int) -> bytes:
    """What was asked for is not there any more: read everything anew. The stream goes on after `place`."""
    return f"event: resync\nid: {place}\ndata: {json.dumps({'newest_id': place})}\n\n".encode()


def keep_alive(place: int) -> bytes:
    return f": keep-alive\nid: {place}\n\n".encode()
