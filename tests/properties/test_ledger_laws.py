"""Laws of the ledger: a group comes back bit for bit, and settling changes nothing that the audit says."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.driver.ledger.group_bytes import batch_digest, decode, encode
from rlhf_cluster.flow.audit import audit
from rlhf_cluster.flow.history import History
from rlhf_cluster.flow.settle import settle
from rlhf_cluster.records import Invalid, Prompt, RolloutGroup
from rlhf_cluster.testing.ledger_story import ledger_story

any_text = st.text(st.characters(exclude_categories=()), max_size=8)  # lone surrogates too
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=5,
)


@st.composite
def columns(draw, dtype, length):
    """Every bit pattern, NaN with payloads included."""
    return np.frombuffer(draw(st.binary(min_size=4 * length, max_size=4 * length)), dtype)


@st.composite
def groups(draw):
    lengths = draw(st.lists(st.integers(0, 4), max_size=4))
    num_completions, num_tokens = len(lengths), sum(lengths)

    def maybe(length):
        return draw(st.none() | columns(np.float32, length))

    failures = st.builds(Invalid, completion=st.integers(0, 3), source=any_text, kind=any_text, message=any_text)
    texts = st.lists(any_text, min_size=num_completions, max_size=num_completions).map(tuple)
    return RolloutGroup(
        request_id=draw(st.integers(0, 2**40)),
        prompt=Prompt(
            prompt_id=draw(any_text),
            text=draw(any_text),
            token_ids=draw(columns(np.int32, 3)),
            item=draw(st.dictionaries(any_text, any_json, max_size=3)),
        ),
        worker_id=draw(any_text),
        lengths=np.asarray(lengths, np.int32),
        token_ids=draw(columns(np.int32, num_tokens)),
        logprobs=draw(columns(np.float32, num_tokens)),
        versions=draw(columns(np.int32, num_tokens)),
        finish_reasons=draw(texts),
        texts=draw(st.just(()) | texts),
        rewards=maybe(num_completions),
        breakdown=draw(st.dictionaries(any_text, columns(np.float32, num_completions), max_size=3)),
        invalid=tuple(draw(st.lists(failures, max_size=2))),
        reference_logprobs=maybe(num_tokens),
        advantages=maybe(num_tokens),
    )


def bits(value):
    """Comparable to the bit: arrays as (dtype, bytes)."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if dataclasses.is_dataclass(value):
        return {field.name: bits(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return [(key, bits(item)) for key, item in value.items()]
    return value


@given(group=groups())
def test_a_group_comes_back_to_the_bit(group):
    back = decode(encode(group))
    assert bits(back) == bits(group)
    assert batch_digest([back]) == batch_digest([group])


@given(num_steps=st.integers(1, 6), num_prompts=st.integers(1, 3), cuts=st.lists(st.integers(0, 60), max_size=3))
def test_settling_at_any_time_changes_nothing_that_the_audit_says(num_steps, num_prompts, cuts):
    story = ledger_story(num_steps=num_steps, prompts_per_step=num_prompts)
    whole = History(story)
    ledger = []
    for place, entry in enumerate(story):
        ledger.append(entry)
        if place in cuts:
            history = History(ledger)
            ledger = settle(ledger, history, step=max(0, history.step - 1))
    short = History(ledger)
    for name in ("step", "next_request_id", "outstanding", "dropped_since_last_accept", "last_epoch", "violations"):
        assert getattr(short, name) == getattr(whole, name)
    told, expected = (audit(each, max_staleness=0, num_steps=num_steps) for each in (short, whole))
    different = {"checks", "versions", "num_settled_steps", "checkpoints"}
    for field in dataclasses.fields(told):
        if field.name not in different:
            assert getattr(told, field.name) == getattr(expected, field.name), field.name
    assert told.ok
