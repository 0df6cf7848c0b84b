from __future__ import annotations

import datetime
from dataclasses import replace

import numpy as np
import pytest

from rlhf_cluster.driver.ledger.group_bytes import batch_digest, decode, encode
from rlhf_cluster.errors import DataError, StorageError
from rlhf_cluster.testing.groups import make_group


def with_item(item):
    group = make_group([2, 1])
    return replace(group, prompt=replace(group.prompt, item=item))


def test_item_values_that_json_has_come_back_the_same():
    item = {"answer": "7", "n": 3, "share": 0.1, "none": None, "list": [1, {"deep": "x"}], "nan": float("inf")}
    assert decode(encode(with_item(item))).prompt.item == item


def test_item_values_that_json_lacks_come_back_as_the_nearest_it_has():
    item = {"tuple": (1, 2), "numpy": np.float32(0.5), "array": np.arange(2), "date": datetime.date(2020, 1, 2)}
    expected = {"tuple": [1, 2], "numpy": 0.5, "array": [0, 1], "date": "datetime.date(2020, 1, 2)"}
    assert decode(encode(with_item(item))).prompt.item == expected


def test_item_keys_that_json_cannot_have_are_refused_by_name_of_the_prompt():
    with pytest.raises(DataError, match="prompt 0/0"):
        encode(with_item({"table": {(1, 2): 3}}))


def test_decoded_arrays_can_be_written():
    group = decode(encode(make_group([2, 1])))
    group.token_ids[0] = 1
    assert group.token_ids.flags.aligned


@pytest.mark.parametrize("content", [b"", b"\0\0\0\0", b"\xff\xff\xff\xff{}", encode(make_group([3]))[:-1]])
def test_bytes_that_are_no_group_are_refused(content):
    with pytest.raises(StorageError, match="no rollout group"):
        decode(content)


def test_the_digest_sees_every_bit_of_what_is_trained_on_and_not_who_made_it():
    group = make_group([3, 2])
    digest = batch_digest([group])
    assert len(digest) == 32
    assert batch_digest([replace(group, worker_id="rollout-9")]) == digest
    for name in ("token_ids", "logprobs", "versions", "rewards", "reference_logprobs", "advantages"):
        values = getattr(group, name).copy()
        values.view(np.uint32)[1] ^= 1
        assert batch_digest([replace(group, **{name: values})]) != digest, name
    for change in ({"advantages": None}, {"texts": ("text", "other")}, {"breakdown": {"length": group.rewards}}):
        assert batch_digest([replace(group, **change)]) != digest
    assert batch_digest([group, group]) != digest
