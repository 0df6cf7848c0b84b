import json
import re

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from rlhf_cluster.data.settings import DatasetSource, JsonlSource, ParquetSource, ProceduralSource
from rlhf_cluster.data.sources import read_rows
from rlhf_cluster.errors import ConfigError, DataError

COLUMNS = [{"prompt": "one plus one", "answer": 2}, {"prompt": "one plus two", "answer": 3}]


def jsonl(tmp_path, rows, **settings):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return JsonlSource(path=path, **settings)


def parquet(tmp_path, rows, **settings):
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return ParquetSource(path=path, **settings)


def dataset(tmp_path, rows, **settings):
    path = tmp_path / "rows"
    datasets.Dataset.from_list(rows).save_to_disk(str(path))
    return DatasetSource(path=path, **settings)


@pytest.fixture(params=[jsonl, parquet, dataset])
def write(request, tmp_path):
    return lambda rows, **settings: request.param(tmp_path, rows, **settings)


def test_every_kind_of_file_gives_the_same_rows(write):
    rows = read_rows(write(COLUMNS))
    assert [row.prompt for row in rows] == ["one plus one", "one plus two"]
    assert [row.number for row in rows] == [0, 1]
    assert [row.item for row in rows] == [{"answer": 2}, {"answer": 3}]


def test_num_rows_takes_the_first(write):
    assert [row.item["answer"] for row in read_rows(write(COLUMNS, num_rows=1))] == [2]


def test_a_missing_column_is_answered_with_a_close_one(write):
    with pytest.raises(DataError, match="no column 'promt' \\(did you mean 'prompt'\\?\\); it has prompt, answer"):
        read_rows(write(COLUMNS, prompt_column="promt"))


def test_an_empty_prompt_is_named_by_its_row(write):
    with pytest.raises(DataError, match="row 2: the prompt is empty"):
        read_rows(write([*COLUMNS, {"prompt": "  ", "answer": 0}]))


@pytest.mark.parametrize("kind", [JsonlSource, ParquetSource, DatasetSource])
def test_a_missing_file_is_named(kind, tmp_path):
    with pytest.raises(DataError, match="nowhere does not exist"):
        read_rows(kind(path=tmp_path / "nowhere"))


def test_a_source_without_rows_is_refused(tmp_path):
    with pytest.raises(DataError, match="has no rows"):
        read_rows(jsonl(tmp_path, []))


def test_a_line_that_is_no_json_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "fine"}\n\n{"prompt": \n')
    with pytest.raises(DataError, match="line 3 is not JSON"):
        read_rows(JsonlSource(path=path))
    path.write_text("[1]\n")
    with pytest.raises(DataError, match="line 1 is list"):
        read_rows(JsonlSource(path=path))


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("{}")
    with pytest.raises(DataError, match="is no Parquet file"):
        read_rows(ParquetSource(path=path))
    with pytest.raises(DataError, match=r"was not written by datasets\.save_to_disk"):
        read_rows(DatasetSource(path=tmp_path))


def test_a_dataset_with_splits_needs_one_of_them(tmp_path):
    both = datasets.DatasetDict(
        {"train": datasets.Dataset.from_list(COLUMNS), "test": datasets.Dataset.from_list(COLUMNS[:1])}
    )
    both.save_to_disk(str(tmp_path / "both"))
    assert len(read_rows(DatasetSource(path=tmp_path / "both", split="test"))) == 1
    with pytest.raises(DataError, match="needs a split; it holds test, train"):
        read_rows(DatasetSource(path=tmp_path / "both"))
    with pytest.raises(DataError, match="did you mean 'train'"):
        read_rows(DatasetSource(path=tmp_path / "both", split="trian"))


def test_chat_messages_are_kept(tmp_path):
    messages = [{"role": "user", "content": "hello"}]
    assert read_rows(jsonl(tmp_path, [{"prompt": messages}]))[0].prompt == tuple(messages)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (None, "must be a text or a list of chat messages"),
        ([], "the prompt is empty"),
        ([{"role": "user"}], "needs the texts `role` and `content`"),
        (["hello"], "needs the texts `role` and `content`"),
        ([{"role": "user", "content": " "}], "the last message is empty"),
    ],
)
def test_a_prompt_that_is_neither_text_nor_chat_is_refused(prompt, message, tmp_path):
    with pytest.raises(DataError, match=f"row 0.*{re.escape(message)}"):
        read_rows(jsonl(tmp_path, [{"prompt": prompt}]))


def test_built_in_prompts_come_by_name():
    rows = read_rows(ProceduralSource(name="word_world", num_rows=5))
    assert len(rows) == 5
    assert set(rows[0].item) == {"kind"}


def test_a_function_may_give_texts(tmp_path, monkeypatch):
    (tmp_path / "own_prompts.py").write_text(
        "def make(*, split, num_rows, seed, word):\n"
        "    return [f'{word} {split} {seed} {i}' for i in range(num_rows)]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    source = ProceduralSource(name="own_prompts:make", num_rows=2, seed=7, arguments={"word": "hi"})
    assert [row.prompt for row in read_rows(source)] == ["hi train 7 0", "hi train 7 1"]
    with pytest.raises(ConfigError, match="has no 'mak' \\(did you mean 'make'"):
        read_rows(ProceduralSource(name="own_prompts:mak"))
    with pytest.raises(ConfigError, match=r"own_prompts:make.*missing a required .*'word'; it takes .*seed, word"):
        read_rows(ProceduralSource(name="own_prompts:make", arguments={"wrod": "hi"}))


def test_an_import_path_that_is_none_is_named():
    with pytest.raises(ConfigError, match="cannot import no_such_package"):
        read_rows(ProceduralSource(name="no_such_package:make"))
