"""Rows as rollout groups: which columns make which kind, and what becomes of rows that are too long."""

import json

import numpy as np
import pytest

from rlhf_cluster.data.draws import Epochs
from rlhf_cluster.data.recorded import RecordedStream, make_recorder, open_recorded, usable
from rlhf_cluster.data.settings import DataSettings, JsonlSource
from rlhf_cluster.data.sources import read_rows
from rlhf_cluster.errors import DataError, ExampleTooLong
from rlhf_cluster.models.word_world import build_tokenizer

from .chat_tokenizers import chat_tokenizer, said


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


@pytest.fixture
def read(tmp_path):
    """Rows as a job reads them: from a file."""

    def of(*rows):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return read_rows(JsonlSource(path=path))

    return of


@pytest.fixture
def record(read):
    recorder = make_recorder(chat_tokenizer(), template="chat", max_tokens=100)
    return lambda **columns: recorder(read(columns)[0])


def completions(group):
    return [said(chat_tokenizer(), tokens) for tokens in group.completions()]


def test_prompt_and_completion_are_a_demonstration(record):
    group = record(prompt="hello", completion="hi", subject="greeting")
    assert group.prompt.text.endswith("<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n")
    assert completions(group) == ["hi<|im_end|>"]
    assert group.rewards is None
    assert group.loss_mask is None
    assert group.prompt.item == {"subject": "greeting"}
    assert group.texts == ("hi",)
    assert group.finish_reasons == ("stop",)


def test_nobody_sampled_a_recorded_token(record):
    group = record(prompt="hello", completion="hi")
    assert len(group.versions) == 0
    assert group.oldest_version == -1
    assert not group.logprobs.any()
    assert len(group.logprobs) == group.num_tokens
    assert {group.token_ids.dtype, group.lengths.dtype, group.prompt.token_ids.dtype} == {np.dtype("int32")}


def test_a_completion_may_be_messages(record):
    told = record(prompt=[user("hello")], completion=[assistant("hi")])
    assert completions(told) == completions(record(prompt="hello", completion="hi"))


def test_of_a_whole_chat_the_prompt_ends_before_the_first_answer(record):
    group = record(messages=[user("hello"), assistant("hi"), user("how are you"), assistant("fine"), user("thanks")])
    assert "how are you" not in group.prompt.text
    assert completions(group)[0].endswith("fine<|im_end|>")
    assert said(chat_tokenizer(), group.token_ids[group.loss_mask]) == "hi<|im_end|>fine<|im_end|>"
    assert group.num_trained_tokens == 4
    assert group.prompt.item == {}


def test_a_pair_says_by_its_rewards_which_was_preferred(record):
    group = record(prompt="hello", chosen="hi", rejected="no")
    assert completions(group) == ["hi<|im_end|>", "no<|im_end|>"]
    assert group.rewards.tolist() == [1, 0]
    assert record(prompt="hello", chosen="hi", rejected="no", tie=True).rewards.tolist() == [0.5, 0.5]
    assert record(prompt="hello", chosen="hi", rejected="no", tie=False).rewards.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("columns", "rewards"),
    [
        ({"margin": 1.5}, [1.5, 0]),
        ({"chosen_score": 8, "rejected_score": 3}, [8, 3]),
        ({"score_chosen": 8.5, "score_rejected": 8.5}, [8.5, 8.5]),
        ({"margin": None}, [1, 0]),
    ],
)
def test_by_how_much_is_kept_where_it_is_known(columns, rewards, record):
    group = record(prompt="hello", chosen="hi", rejected="no", **columns)
    assert group.rewards.tolist() == rewards
    assert group.prompt.item == columns


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"margin": -1.0}, "margin is -1; it must be above 0"),
        ({"chosen_score": 1, "rejected_score": 3}, "chosen_score 1 is below rejected_score 3"),
    ],
)
def test_a_preference_that_contradicts_itself_is_refused(columns, message, record):
    with pytest.raises(DataError, match=f"row 0: {message}"):
        record(prompt="hello", chosen="hi", rejected="no", **columns)


def test_the_prompt_of_two_whole_chats_is_what_they_begin_with(record):
    begin = [user("hello"), assistant("hi"), user("how are you")]
    group = record(chosen=[*begin, assistant("fine")], rejected=[*begin, assistant("no")])
    assert group.prompt.text.endswith("how are you<|im_end|>\n<|im_start|>assistant\n")
    assert completions(group) == ["fine<|im_end|>", "no<|im_end|>"]
    assert group.rewards.tolist() == [1, 0]


def test_whole_chats_win_over_a_prompt_column_that_repeats_their_beginning(record):
    group = record(
        prompt="hello", chosen=[user("hello"), assistant("hi")], rejected=[user("hello"), assistant("no")], messages=[]
    )
    assert group.prompt.text.count("hello") == 1


def test_two_chats_that_are_the_same_still_end_with_an_answer(record):
    chat = [user("hello"), assistant("hi")]
    assert completions(record(chosen=chat, rejected=chat, tie=True)) == ["hi<|im_end|>"] * 2


def test_two_chats_that_share_nothing_are_refused(record):
    with pytest.raises(DataError, match="no message that the assistant could answer"):
        record(chosen=[user("hello"), assistant("hi")], rejected=[user("how"), assistant("hi")])


@pytest.mark.parametrize(("label", "rewards"), [(True, [1]), (False, [0])])
def test_a_label_calls_one_completion_good_or_bad(label, rewards, record):
    assert record(prompt="hello", completion="hi", label=label).rewards.tolist() == rewards


def test_a_label_that_is_not_true_or_false_is_just_another_column(record):
    assert record(prompt="hello", completion="hi", label="greeting").rewards is None


def test_completions_with_rewards_are_a_ranked_group(record):
    group = record(prompt="hello", completions=["hi", "no", "yes"], rewards=[2, -1, 0.5])
    assert group.rewards.tolist() == [2, -1, 0.5]
    assert group.lengths.tolist() == [2, 2, 2]
    with pytest.raises(DataError, match="row 0: `completions` and `rewards` must be lists of the same length"):
        record(prompt="hello", completions=["hi", "no"], rewards=[2])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"prompt": "hello", "answer": "hi"}, "row 0 has no recorded completion.*its columns are answer"),
        ({"prompt": "hello", "chosen": "hi"}, "row 0 has no recorded completion"),
        ({"messages": [assistant("hi")]}, "no message that the assistant could answer"),
        ({"messages": [user("hi")]}, "row 0: what follows the prompt must begin with a message of the assistant"),
        ({"messages": []}, "the `messages` column is empty"),
        ({"prompt": "hello", "completion": [user("hi")]}, "must begin with a message of the assistant"),
        ({"prompt": [user("hi"), assistant("hi")], "completion": "hi"}, "its prompt ends with the assistant's message"),
        ({"prompt": "hello", "completion": 7}, "the completion is 7"),
    ],
)
def test_a_row_that_recorded_nothing_is_named(columns, message, record):
    with pytest.raises(DataError, match=message):
        record(**columns)


def recorder(**settings):
    return make_recorder(build_tokenizer(), **{"max_tokens": 10, **settings})


SHORT = {"prompt": "what is one plus one ?", "completion": "two"}  # 7 + 2 tokens
LONG = {"prompt": "what is one plus one ?", "completion": "one two three four"}  # 7 + 5


def test_a_row_that_is_too_long_is_refused_with_its_lengths(read):
    with pytest.raises(
        ExampleTooLong, match=r"row 1: its prompt of 7 tokens and its completion of 5 are more than the 10"
    ):
        usable(read(SHORT, LONG), recorder(), skip=False)


def test_a_row_may_be_as_long_as_allowed(read):
    assert usable(read(LONG), recorder(max_tokens=12), skip=False)[1].num_cut == 0


def test_too_long_rows_are_skipped_and_counted(read):
    rows, counts = usable(read(LONG, SHORT, LONG), recorder(), skip=True)
    assert [row.number for row in rows] == [1]
    assert (counts.num_rows, counts.num_skipped, counts.num_cut) == (1, 2, 0)
    assert (counts.num_tokens, counts.num_trained_tokens) == (9, 2)
    with pytest.raises(DataError, match="all 2 rows are too long"):
        usable(read(LONG, LONG), recorder(), skip=True)


def test_a_cut_completion_loses_its_end_and_does_not_claim_to_have_stopped(read):
    record = recorder(too_long="cut")
    group = record(read(LONG)[0])
    assert build_tokenizer().decode(group.token_ids) == "one two three"
    assert group.finish_reasons == ("length",)
    assert usable(read(LONG, SHORT), record, skip=False)[1].num_cut == 1


def test_a_prompt_that_leaves_no_room_cannot_be_cut(read):
    with pytest.raises(ExampleTooLong, match=r'or set data\.too_long = "skip"'):
        recorder(too_long="cut", max_tokens=7)(read(LONG)[0])


def test_the_shorter_completion_of_a_cut_pair_stays_whole(read):
    pair = {"prompt": "what is one plus one ?", "chosen": "two", "rejected": "one two three four"}
    assert recorder(too_long="cut")(read(pair)[0]).finish_reasons == ("stop", "length")


def test_the_stream_goes_round_and_numbers_its_examples(read):
    rows = read(SHORT, SHORT, SHORT)
    record = recorder()
    stream = RecordedStream(Epochs(rows, seed=0), record, counts=usable(rows, record, skip=False)[1])
    groups = [stream[number] for number in range(7)]
    assert [group.request_id for group in groups] == list(range(7))
    assert sorted(group.prompt.prompt_id for group in groups[:6]) == ["0/0", "0/1", "1/0", "1/1", "2/0", "2/1"]
    assert stream.num_rows == 3


@pytest.fixture
def source(read, tmp_path):
    read(*({"prompt": f"what is {word} ?", "completion": "two"} for word in ("one", "two", "three", "four", "five")))
    return JsonlSource(path=tmp_path / "rows.jsonl")


def opened(source, *, seed=0, **settings):
    data = DataSettings(train=source, max_tokens=20)
    return open_recorded(data, data.train, build_tokenizer(), seed=seed, max_context=128, **settings)


def test_a_stream_is_a_function_of_the_seed(source):
    def order(seed):
        stream = opened(source, seed=seed)
        return [stream[number].prompt.prompt_id for number in range(15)]

    assert order(0) == order(0)
    assert order(0) != order(1)


def test_evaluation_keeps_the_order_of_the_source(source):
    stream = opened(source, in_order=True)
    assert [stream[number].prompt.prompt_id for number in range(5)] == ["0/0", "1/0", "2/0", "3/0", "4/0"]
    assert stream.counts.num_rows == 5


def test_the_models_context_bounds_what_the_job_allows(source):
    data = DataSettings(train=source, max_tokens=1000)
    with pytest.raises(ExampleTooLong, match="the 6 allowed"):
        open_recorded(data, data.train, build_tokenizer(), seed=0, max_context=6)


def test_what_was_recorded_when_the_stream_was_opened_is_not_tokenised_again(source):
    stream = opened(source)
    first, again = stream[2], stream[2]
    assert first.token_ids is again.token_ids
    same_row = next(n for n in range(5, 10) if stream[n].prompt.prompt_id.startswith(first.prompt.prompt_id[0]))
    assert stream[same_row].token_ids is first.token_ids
    assert (stream[same_row].request_id, first.request_id) == (same_row, 2)


def test_rows_past_those_that_are_kept_are_recorded_when_they_are_drawn(source, monkeypatch):
    monkeypatch.setattr("rlhf_cluster.data.recorded.NUM_KEPT", 1)
    few = opened(source)
    monkeypatch.undo()
    all_of_them = opened(source)
    for n in range(10):
        assert few[n].token_ids.tolist() == all_of_them[n].token_ids.tolist()
        assert few[n].prompt.prompt_id == all_of_them[n].prompt.prompt_id
