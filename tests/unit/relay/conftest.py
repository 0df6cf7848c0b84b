"""A stand-in for the service, for tests of what the relay makes of its answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .stand_in import StandIn


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    server = StandIn()
    yield server
    server.close()
