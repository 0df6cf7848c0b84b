"""Server-sent events, from lines to messages."""

from __future__ import annotations

from rlhf_cluster.client.stream import STILL_THERE, parse

EVENT = ["event: metrics", "id: 7", 'data: {"event_id": 7}', ""]


def told(*lines: str) -> list[tuple[str, str, dict]]:
    return [(message.topic, message.event_id, dict(message.data)) for message in parse(lines)]


def test_an_event_has_its_topic_id_and_data():
    assert told(*EVENT) == [("metrics", "7", {"event_id": 7})]


def test_a_message_without_data_is_a_sign_of_life_that_moves_the_place():
    assert told("retry: 2000", "id: 3", "") == [(STILL_THERE, "3", {})]
    assert told(": keep-alive", "id: 4", "") == [(STILL_THERE, "4", {})]


def test_a_message_that_was_cut_off_is_none():
    assert told(*EVENT[:-1]) == []


def test_data_over_several_lines_is_joined_and_a_topic_does_not_outlive_its_message():
    assert told("event: logs", 'data: {"job_id":', 'data: "j"}', "", "data: {}", "") == [
        ("logs", "", {"job_id": "j"}),
        ("message", "", {}),
    ]


def test_data_that_is_no_object_says_nothing():
    assert told("data: [1", "", "data: 3", "") == [("message", "", {}), ("message", "", {})]
