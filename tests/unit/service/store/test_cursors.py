"""Cursors go out and come back as they were; anything else is refused in a sentence."""

from __future__ import annotations

import base64
import json

import pytest

from rlhf_cluster.service.store import cursors


@pytest.mark.parametrize(
    ("keys", "kinds"),
    [((1.5, "job_1"), (float, str)), ((7,), (int,)), ((None, 3), (float, int)), (("ä\0",), (str,)), ((2**60,), (int,))],
)
def test_the_keys_of_a_cursor_come_back(keys, kinds):
    assert cursors.decode(cursors.encode(*keys), *kinds) == list(keys)


def test_a_cursor_can_stand_in_a_url():
    assert cursors.encode(1e300, "?&/+ä").replace("-", "").replace("_", "").isalnum()


def _made_by_hand(data: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(data).encode()).decode()


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "!",
        "ä",
        "WzFd" * 4000,
        _made_by_hand({"a": 1}),
        _made_by_hand([]),
        _made_by_hand([1, 2]),
        _made_by_hand(["1"]),
        _made_by_hand([True]),
        _made_by_hand([1.5]),
        _made_by_hand([None]),
        _made_by_hand([2**70]),
        _made_by_hand([float("nan")]),
        base64.urlsafe_b64encode(b"[" * 9000).decode(),
        base64.urlsafe_b64encode(b"[" + b"9" * 9000 + b"]").decode(),
    ],
)
def test_what_no_list_has_given_is_refused(cursor: str):
    with pytest.raises(ValueError, match="give the next_cursor of the page before"):
        cursors.decode(cursor, int)


@pytest.mark.parametrize("key", ["x", float("inf"), float("nan"), True])
def test_a_number_has_to_be_a_finite_number(key: object):
    with pytest.raises(ValueError, match="next_cursor"):
        cursors.decode(_made_by_hand([key]), float)
