import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_cluster.data.sources import Row
from rlhf_cluster.data.stream import PromptStream


def stream(num_rows, *, seed, shuffle):
    rows = [Row(number=number, prompt=f"row {number}") for number in range(num_rows)]
    return PromptStream(
        rows,
        lambda row: (row.prompt, np.array([row.number], np.int32)),
        seed=seed,
        max_prompt_tokens=1,
        shuffle=shuffle,
    )


def take(prompts, count):
    return [next(prompts).prompt_id for _ in range(count)]


streams = {"num_rows": st.integers(1, 30), "seed": st.integers(0, 2**32), "shuffle": st.booleans()}


@settings(deadline=None)
@given(drawn=st.integers(0, 100), **streams)
def test_a_stream_resumed_anywhere_goes_on_as_if_never_stopped(drawn, num_rows, seed, shuffle):
    first, resumed = (stream(num_rows, seed=seed, shuffle=shuffle) for _ in range(2))
    take(first, drawn)
    resumed.restore(first.state())
    assert take(resumed, 40) == take(first, 40)


@settings(deadline=None)
@given(num_epochs=st.integers(1, 4), **streams)
def test_every_row_comes_once_an_epoch(num_epochs, num_rows, seed, shuffle):
    prompts = stream(num_rows, seed=seed, shuffle=shuffle)
    for epoch in range(num_epochs):
        assert sorted(take(prompts, num_rows)) == sorted(f"{row}/{epoch}" for row in range(num_rows))
