from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_cluster.data.word_world import gold, rows, vocabulary

PROMPTS = [row["prompt"] for row in rows(split="train") + rows(split="eval")]
sentences = st.lists(st.sampled_from(vocabulary()), max_size=20).map(" ".join)


@settings(deadline=None)
@given(prompt=st.sampled_from(PROMPTS), completion=sentences | st.text())
def test_gold_is_a_half_step_within_two(prompt, completion):
    assert gold(prompt, completion) in {-2.0, -1.0, 0.0, 1.0, 2.0}


@settings(deadline=None)
@given(prompt=st.sampled_from(PROMPTS), completion=sentences)
def test_gold_does_not_depend_on_white_space(prompt, completion):
    assert gold(prompt, f"  {completion.replace(' ', '   ')} ") == gold(prompt, completion)
