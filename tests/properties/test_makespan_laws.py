"""Laws of the ideal makespan, and the same schedule played second by second without events, heap or buffer."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_cluster.flow.makespan import makespan_s

schedules = settings(deadline=None, max_examples=200)


@st.composite
def whole_seconds(draw):
    shape = {
        "num_workers": draw(st.integers(1, 3)),
        "slots": draw(st.integers(1, 2)),
        "prompts_per_step": draw(st.integers(1, 3)),
        "train_s": draw(st.integers(0, 4)),
        "num_steps": draw(st.integers(1, 5)),
        "max_staleness": draw(st.integers(0, 3)),
    }
    num_groups = shape["prompts_per_step"] * shape["num_steps"]
    durations_s = draw(st.lists(st.integers(0, 6), min_size=num_groups, max_size=num_groups))
    return durations_s, shape


def played(durations_s, *, num_workers, slots, prompts_per_step, train_s, num_steps, max_staleness) -> int:
    """Every whole second, whatever can happen happens, in any order until nothing more can."""
    left_s: dict[int, int] = {}
    complete: set[int] = set()
    num_sent = num_taken = num_trained = second = 0
    training_left_s: int | None = None
    while True:
        changed = True
        while changed:
            changed = False
            for group in [group for group, seconds in left_s.items() if seconds == 0]:
                del left_s[group]
                complete.add(group)
                changed = True
            if training_left_s == 0:
                training_left_s, num_trained, changed = None, num_trained + 1, True
            first = num_taken * prompts_per_step
            batch = set(range(first, first + prompts_per_step))
            if training_left_s is None and num_taken < num_steps and batch <= complete:
                training_left_s, num_taken, changed = train_s, num_taken + 1, True
            num_batches = min(max_staleness + 1 - (num_taken - num_trained), num_steps - num_taken)
            room = prompts_per_step * num_batches - (num_sent - num_taken * prompts_per_step)
            if room > 0 and len(left_s) < num_workers * slots:
                left_s[num_sent] = durations_s[num_sent]
                num_sent, changed = num_sent + 1, True
        if num_trained == num_steps:
            return second
        second += 1
        left_s = {group: seconds - 1 for group, seconds in left_s.items()}
        training_left_s = None if training_left_s is None else training_left_s - 1


@schedules
@given(whole_seconds())
def test_events_and_seconds_give_the_same_time(schedule):
    durations_s, shape = schedule
    assert makespan_s(durations_s, **shape) == played(durations_s, **shape)


@schedules
@given(whole_seconds())
def test_it_is_never_below_what_learner_workers_and_the_longest_group_need(schedule):
    durations_s, shape = schedule
    lasts_s = makespan_s(durations_s, **shape)
    assert lasts_s >= shape["train_s"] * shape["num_steps"]
    assert lasts_s >= sum(durations_s) / (shape["num_workers"] * shape["slots"])
    assert lasts_s >= max(durations_s) + shape["train_s"]


@schedules
@given(whole_seconds())
def test_one_slot_for_every_group_and_any_staleness_leaves_only_the_learner_and_the_order(schedule):
    durations_s, shape = schedule
    lasts_s = makespan_s(durations_s, **{**shape, "num_workers": len(durations_s), "max_staleness": shape["num_steps"]})
    end_s, size = 0, shape["prompts_per_step"]
    for step in range(shape["num_steps"]):
        end_s = max(end_s, *durations_s[: (step + 1) * size], 0) + shape["train_s"]
    assert lasts_s == end_s
