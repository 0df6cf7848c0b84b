import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_cluster.data.draws import Epochs
from rlhf_cluster.data.sources import Row
from rlhf_cluster.data.stream import PromptStream


def stream(num_rows, *, seed, shuffle):
    rows = [Row(number=number, prompt=f"row {number}") for number in range(num_rows)]
    draws = Epochs(rows, seed=seed, shuffle=shuffle)
    return PromptStream(draws, lambda row: (row.prompt, np.array([row.number], np.int32)), max_prompt_tokens=1)


streams = {"num_rows": st.integers(1, 30), "seed": st.integers(0, 2**32), "shuffle": st.booleans()}


@settings(deadline=None)
@given(numbers=st.lists(st.integers(0, 100), max_size=20), **streams)
def test_a_place_in_the_stream_is_always_the_same_prompt(numbers, num_rows, seed, shuffle):
    first, again = (stream(num_rows, seed=seed, shuffle=shuffle) for _ in range(2))
    in_order = [first[number].prompt_id for number in range(101)]
    assert [again[number].prompt_id for number in numbers] == [in_order[number] for number in numbers]


@settings(deadline=None)
@given(num_epochs=st.integers(1, 4), **streams)
def test_every_row_comes_once_an_epoch(num_epochs, num_rows, seed, shuffle):
    prompts = stream(num_rows, seed=seed, shuffle=shuffle)
    for epoch in range(num_epochs):
        ids = [prompts[epoch * num_rows + index].prompt_id for index in range(num_rows)]
        assert sorted(ids) == sorted(f"{row}/{epoch}" for row in range(num_rows))
