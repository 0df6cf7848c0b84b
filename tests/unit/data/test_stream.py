import numpy as np
import pytest

from rlhf_cluster.data.draws import Drawn, Epochs
from rlhf_cluster.data.sources import Row
from rlhf_cluster.data.stream import PromptStream, prompts_once
from rlhf_cluster.errors import DataError, PromptTooLong


def rows(*lengths):
    return [Row(number=number, prompt="x" * length, item={"n": length}) for number, length in enumerate(lengths)]


def tokenize(row):
    return row.prompt, np.arange(len(row.prompt), dtype=np.int32)


def stream(*lengths, seed=0, shuffle=True):
    return PromptStream(Epochs(rows(*lengths), seed=seed, shuffle=shuffle), tokenize, max_prompt_tokens=8)


def test_ids_name_the_row_and_the_epoch():
    prompts = stream(1, 2, shuffle=False)
    assert [prompts[number].prompt_id for number in range(5)] == ["0/0", "1/0", "0/1", "1/1", "0/2"]


def test_a_prompt_carries_text_tokens_and_the_other_columns():
    prompt = stream(3)[0]
    assert (prompt.text, prompt.token_ids.tolist(), prompt.item) == ("xxx", [0, 1, 2], {"n": 3})


def test_epochs_and_seeds_have_different_orders():
    def order(seed, epoch):
        prompts = stream(*[1] * 20, seed=seed)
        return [prompts[20 * epoch + index].prompt_id.split("/")[0] for index in range(20)]

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_a_prompt_at_the_bound_passes_and_one_past_it_names_row_length_and_bound():
    assert len(stream(8)[0].token_ids) == 8
    prompts = stream(1, 9, shuffle=False)
    with pytest.raises(PromptTooLong, match="row 1: its prompt is 9 tokens long, at most 8 fit"):
        prompts.verify()
    assert prompts[0].prompt_id == "0/0"
    with pytest.raises(PromptTooLong, match="row 1"):
        prompts[1]


def test_no_rows_are_refused():
    with pytest.raises(DataError, match="without rows"):
        stream()


def test_evaluation_prompts_keep_their_order_and_have_their_own_ids():
    prompts = prompts_once(stream(2, 1, shuffle=False))
    assert [prompt.prompt_id for prompt in prompts] == ["eval-0/0", "eval-1/0"]
    with pytest.raises(PromptTooLong):
        prompts_once(stream(2, 9))


def test_of_a_prompt_worded_too_long_the_first_plainer_one_that_fits_is_taken():
    long, longish, plain = rows(12, 9, 7)

    class Worded:
        rows = (plain,)

        def __getitem__(self, number):
            return Drawn(row=long, prompt_id=f"{number}/0", plainer=(longish, plain))

    prompts = PromptStream(Worded(), tokenize, max_prompt_tokens=8)
    prompts.verify()
    assert (prompts[3].text, prompts[3].prompt_id) == ("x" * 7, "3/0")
    assert prompts.row(3) == plain
    assert prompts.prompt(plain, prompt_id="own").text == "x" * 7
