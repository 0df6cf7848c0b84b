"""Preferences in files and back, and what several people's judgements of one pair come to."""

import json
from dataclasses import replace

import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf_cluster.data.preference_files import read_preferences, write_preferences
from rlhf_cluster.data.preferences import Preference, majority, preference_of
from rlhf_cluster.data.recorded import open_recorded
from rlhf_cluster.data.settings import DataSettings
from rlhf_cluster.errors import DataError
from rlhf_cluster.models.word_world import build_tokenizer

PAIR = Preference(
    pair_id="7",
    prompt="what is one plus one ?",
    a="two",
    b="three",
    label="b",
    labeler="ann",
    kind="person",
    time_s=1.5,
    provenance={"policy": "word-world", "version": 3, "sampling": {"temperature": 1.0}},
    item={"margin": 0.5},
)

names = st.text('ab cé{}"\\\n', max_size=6)
plain = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | names
)
nested = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3))
preferences = st.builds(
    Preference,
    pair_id=names,
    prompt=names.filter(str.strip),
    a=names,
    b=names,
    label=st.sampled_from(["a", "b", "tie", "skip", None]),
    labeler=st.none() | names,
    kind=st.sampled_from(["person", "rule", "judge", None]),
    time_s=st.none() | st.floats(0, 2e9),
    provenance=st.dictionaries(names, nested, max_size=3),
    item=st.fixed_dictionaries(
        {},
        optional={
            "margin": st.floats(0, 9),
            "source": names,
            "item": names,
            "scores": st.lists(st.floats(0, 9), max_size=2),
        },
    ),
)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(written=st.lists(preferences, max_size=5))
def test_what_is_read_is_what_was_written(written, suffix, tmp_path):
    path = tmp_path / f"pairs.{suffix}"
    write_preferences(path, written)
    assert read_preferences(path) == written


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_prompt_of_messages_comes_back_too(suffix, tmp_path):
    chat = replace(PAIR, prompt=({"role": "user", "content": "hello"},))
    write_preferences(tmp_path / f"pairs.{suffix}", [chat])
    assert read_preferences(tmp_path / f"pairs.{suffix}") == [chat]


@pytest.mark.parametrize(
    ("label", "chosen", "rejected", "tie"),
    [
        *(("a", "two", "three", False), ("b", "three", "two", False), ("tie", "two", "three", True)),
        *(("skip", None, None, False), (None, None, None, False)),
    ],
)
def test_the_columns_are_those_of_the_fields_data_sets(label, chosen, rejected, tie):
    columns = replace(PAIR, label=label).columns()
    assert [columns[name] for name in ("chosen", "rejected", "tie")] == [chosen, rejected, tie]
    assert [columns[name] for name in ("completion_a", "completion_b", "margin")] == ["two", "three", 0.5]


def test_parquet_has_typed_columns_even_where_all_are_null(tmp_path):
    write_preferences(tmp_path / "pairs.parquet", [replace(PAIR, label=None, labeler=None, kind=None, time_s=None)])
    schema = pyarrow.parquet.read_schema(tmp_path / "pairs.parquet")
    assert {name: str(schema.field(name).type) for name in ("chosen", "labeler", "time_s", "tie", "margin")} == {
        "chosen": "string",
        "labeler": "string",
        "time_s": "double",
        "tie": "bool",
        "margin": "double",
    }


def test_others_data_sets_are_read_with_the_chosen_one_first():
    read = preference_of({"prompt": "hello", "chosen": "hi", "rejected": "no", "score": 3}, where="row 4")
    assert (read.a, read.b, read.label, read.item) == ("hi", "no", "a", {"score": 3})
    assert read.pair_id == "row 4"
    tie = preference_of({"prompt": "hello", "chosen": "hi", "rejected": "no", "tie": True}, where="row 4")
    assert tie.label == "tie"


def test_a_pair_that_nobody_judged_has_no_label():
    read = preference_of({"prompt": "hello", "completion_a": "hi", "completion_b": "no", "prompt_id": "3/0"}, where="")
    assert (read.label, read.is_decided, read.pair_id) == (None, False, "3/0")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"prompt": "hello", "chosen": "hi"}, "row 1 is no pair: it needs"),
        ({"prompt": "hello", "chosen": "hi", "rejected": 7}, "row 1: the two completions must be texts"),
        ({"prompt": "x", "completion_a": "y", "completion_b": "z", "label": "c"}, "row 1: label is 'c'"),
        ({"prompt": "x", "chosen": "y", "rejected": "z", "kind": "dog"}, "row 1: kind is 'dog'"),
        ({"chosen": "y", "rejected": "z"}, "row 1: the prompt is None"),
    ],
)
def test_what_is_no_preference_is_named(columns, message):
    with pytest.raises(DataError, match=message):
        preference_of(columns, where="row 1")


def test_a_column_whose_name_is_taken_is_refused():
    with pytest.raises(DataError, match="pair 7: the column 'chosen' has a meaning here"):
        replace(PAIR, item={"chosen": "two"}).columns()


def test_files_that_cannot_be_written_say_why(tmp_path):
    with pytest.raises(DataError, match=r"ends in '\.csv'; preferences are written as \.jsonl or \.parquet"):
        write_preferences(tmp_path / "pairs.csv", [PAIR])
    for suffix in ("jsonl", "parquet"):
        with pytest.raises(DataError, match="cannot hold these preferences"):
            write_preferences(tmp_path / f"pairs.{suffix}", [replace(PAIR, provenance={"x": {1, 2}})])
    mixed = [PAIR, replace(PAIR, prompt=({"role": "user", "content": "hello"},))]
    with pytest.raises(DataError, match="cannot hold these preferences"):
        write_preferences(tmp_path / "pairs.parquet", mixed)


@pytest.mark.parametrize(
    ("labels", "result", "agreement"),
    [
        *((["a", "a", "b"], "a", 2 / 3), (["b", "b"], "b", 1), (["a", "b"], "tie", 0), (["a", "tie"], "tie", 1 / 2)),
        *((["a", "skip"], "a", 1), (["skip", "skip"], "skip", None), ([None, "b"], "b", 1), ([None, None], None, None)),
    ],
)
def test_most_decide_and_where_nothing_is_ahead_it_is_a_tie(labels, result, agreement):
    (one,) = majority([replace(PAIR, label=label, labeler=f"p{n}") for n, label in enumerate(labels)])
    assert one.label == result
    assert one.provenance["agreement"] == agreement
    assert [each["label"] for each in one.provenance["labels"]] == [label for label in labels if label]
    assert one.provenance["policy"] == "word-world"


def test_pairs_keep_their_order_and_a_single_judgement_stays_as_it_is():
    other = replace(PAIR, pair_id="8")
    assert majority([PAIR, other, replace(PAIR, labeler="bob")])[1] == other
    assert [each.pair_id for each in majority([PAIR, other, replace(PAIR, labeler="bob")])] == ["7", "8"]


def test_two_pairs_of_one_id_are_refused():
    with pytest.raises(DataError, match="two different pairs are called '7'"):
        majority([PAIR, replace(PAIR, a="four")])


@given(labels=st.lists(st.sampled_from(["a", "b", "tie", "skip", None]), min_size=1, max_size=7), data=st.data())
def test_the_majority_does_not_depend_on_the_order_and_mirrors(labels, data):
    def result(of):
        return majority([replace(PAIR, label=label) for label in of])[0].label

    mirrored = {"a": "b", "b": "a"}
    assert result(data.draw(st.permutations(labels))) == result(labels)
    assert result([mirrored.get(each, each) for each in labels]) == mirrored.get(result(labels), result(labels))


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_file_of_preferences_is_a_source_for_training_and_undecided_pairs_are_left_out(suffix, tmp_path):
    path = tmp_path / f"pairs.{suffix}"
    labels = ["a", "b", "tie", "skip", None]
    rows = [replace(PAIR, pair_id=str(n), label=label, item={}) for n, label in enumerate(labels)]
    write_preferences(path, rows)
    data = DataSettings.model_validate({"train": {"type": suffix, "path": str(path)}, "shuffle": False})
    stream = open_recorded(data, data.train, build_tokenizer(), seed=0, max_context=32)
    assert (stream.num_rows, stream.counts.num_undecided) == (3, 2)
    groups = [stream[n] for n in range(3)]
    assert [group.texts for group in groups] == [("two", "three"), ("three", "two"), ("two", "three")]
    assert [group.rewards.tolist() for group in groups] == [[1, 0], [1, 0], [0.5, 0.5]]
    assert groups[0].prompt.item["pair_id"] == "0"
    assert json.loads(json.dumps(dict(groups[0].prompt.item)))["labeler"] == "ann"


def test_pairs_that_are_all_undecided_teach_nothing(tmp_path):
    write_preferences(tmp_path / "pairs.jsonl", [replace(PAIR, label=None)])
    data = DataSettings.model_validate({"train": {"type": "jsonl", "path": str(tmp_path / "pairs.jsonl")}})
    with pytest.raises(DataError, match="none of the 1 pairs is decided: they need labels"):
        open_recorded(data, data.train, build_tokenizer(), seed=0, max_context=32)
