"""Entries of a journal in words, whatever driver wrote them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.service.timeline import FOLDED, tell

WHEN = {"time_s": 5.0, "step": 3}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KINDS = st.sampled_from(
    ["JobStarted", "Phase", "StepDone", "Evaluated", "Generated", "GroupDropped", "RewardFailed", "CheckpointSaved",
     "WorkerChanged", "PromptQuarantined", "LearnerRecovered", "Notice", "GuardTripped", "JobEnded", "SomethingNew"]
)  # fmt: skip
FIELDS = st.sampled_from(
    ["metrics", "invalid", "reason", "message", "outcome", "state", "level", "text", "step", "time_s", "num_done",
     "first_step"]
)  # fmt: skip
NOT_FIRST_STEP = st.dictionaries(FIELDS.filter(lambda name: name != "first_step"), JSON, max_size=4)


def told(**fields):
    [one] = tell([{**WHEN, **fields}], now_s=9.0)
    return one


def test_a_step_is_told_with_its_reward_and_without_its_groups():
    one = told(event="StepDone", version=3, metrics={"reward/mean": 0.25}, groups=[{"request_id": 1}])
    assert (one.topic, one.kind, one.text) == ("metrics", "StepDone", "step 3: reward 0.25")
    assert one.body == {"version": 3, "metrics": {"reward/mean": 0.25}}


def test_how_far_a_job_that_generates_has_come_is_counted_in_prompts():
    one = told(event="Generated", task="preferences", num_done=12, num_total=40, metrics={"preferences/num_pairs": 9})
    assert (one.topic, one.step, one.text) == ("metrics", 12, "12 of 40 prompts are done")
    assert told(event="JobStarted", first_step=0, num_steps=0).text == "started"


def test_a_lost_worker_is_a_warning_on_the_workers_topic():
    one = told(event="WorkerChanged", role="rollout worker", worker_id="rollout-1", state="lost", reason="killed")
    assert (one.topic, one.level, one.text) == ("workers", "warning", "rollout worker rollout-1 is lost: killed")


def test_a_job_that_goes_on_says_from_where():
    assert told(event="JobStarted", first_step=4, num_steps=9).text == "resumed: steps 5 to 9"
    assert told(event="JobStarted", first_step=0, num_steps=9).text == "started: steps 1 to 9"


def test_what_a_newer_driver_says_is_told_by_its_name():
    one = told(event="MoonLanded", crew=3)
    assert (one.topic, one.kind, one.text, one.body) == ("jobs", "MoonLanded", "MoonLanded", {"crew": 3})


def test_groups_dropped_for_one_reason_in_one_step_are_one_event_with_a_count():
    drop = {"event": "GroupDropped", "time_s": 5.0, "prompt_id": "p", "request_id": 1}
    entries = [
        {**drop, "step": step, "reason": reason} for step, reason in [(1, "a"), (1, "a"), (1, "b"), (2, "a"), (1, "a")]
    ]
    events = tell(entries, now_s=9.0)
    assert [(one.step, one.body["reason"], one.body["count"]) for one in events] == [
        (1, "a", 3),
        (1, "b", 1),
        (2, "a", 1),
    ]
    assert events[0].text == "3 times: a group was dropped: a"


@given(entries=st.lists(st.tuples(KINDS, NOT_FIRST_STEP), max_size=6))
def test_no_entry_is_too_strange_to_be_told_and_none_is_left_out(entries):
    events = tell([{"event": kind, **fields} for kind, fields in entries], now_s=9.0)
    counts = sum(one.body["count"] if one.kind in FOLDED else 1 for one in events)
    assert counts == len(entries)
    assert all(one.level in ("info", "warning", "error") and isinstance(one.text, str) for one in events)


def test_what_a_guard_says_is_told_at_its_own_level():
    one = told(event="GuardTripped", level="error", text="guard kl_runaway: too far", guard="kl_runaway", deed="stop")
    assert (one.topic, one.level, one.text) == ("jobs", "error", "guard kl_runaway: too far")
    assert one.body["guard"] == "kl_runaway"
