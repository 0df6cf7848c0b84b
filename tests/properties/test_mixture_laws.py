"""What holds for every mixture and every wording."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.data.instructions import ChainOfThought, FewShot, Instructions, Inversion, Worder, forms
from rlhf_cluster.data.mixture import Mixture, Part, rates
from rlhf_cluster.data.sources import Row

sizes = st.lists(st.integers(1, 50), min_size=1, max_size=5)
seeds = st.integers(0, 2**32)
texts = st.text("ab{}\\%\n é")


def rows(part, num):
    return [Row(number=n, prompt=f"question {n}", item={"completion": f"answer {n}"}, part=part) for n in range(num)]


def mixture(num_rows, *, seed, worded=False):
    parts = []
    for index, num in enumerate(num_rows):
        of_part = rows(f"p{index}", num)
        worder = Worder(Instructions(inversion=Inversion(probability=0.5)), training_rows=of_part) if worded else None
        parts.append(Part(name=f"p{index}", rows=of_part, worder=worder))
    return Mixture(parts, rates=rates(num_rows), seed=seed)


@given(num_rows=sizes, max_rows=st.integers(1, 60), temperature=st.floats(0.01, 100))
def test_rates_are_shares_and_never_favour_the_smaller(num_rows, max_rows, temperature):
    shares = rates(num_rows, max_rows=max_rows, temperature=temperature)
    assert np.isclose(shares.sum(), 1)
    ordered = shares[np.argsort(num_rows, kind="stable")]
    assert (np.diff(ordered) >= -1e-12).all()


@given(num_rows=sizes, seed=seeds)
def test_shares_near_their_rates(num_rows, seed):
    """Within five standard deviations of a binomial: one draw in two million is outside."""
    num = 20_000
    drawn = mixture(num_rows, seed=seed)
    expected = rates(num_rows)
    deviation = np.sqrt(expected * (1 - expected) / num)
    assert (np.abs(drawn.counts(num) / num - expected) <= 5 * deviation + 1e-9).all()


@given(num_rows=sizes, seed=seeds, numbers=st.lists(st.integers(0, 10_000), max_size=10), worded=st.booleans())
def test_a_draw_is_a_function_of_seed_and_number(num_rows, seed, numbers, worded):
    first, again = (mixture(num_rows, seed=seed, worded=worded) for _ in range(2))
    assert [first[n] for n in numbers] == [again[n] for n in reversed(numbers)][::-1]


@given(num_rows=sizes, seed=seeds)
def test_no_two_draws_have_the_same_id_and_rows_come_equally_often(num_rows, seed):
    drawn = mixture(num_rows, seed=seed)
    ids = [drawn[n].prompt_id for n in range(300)]
    assert len(set(ids)) == len(ids)
    for index in range(len(num_rows)):
        walked = [each.partition("/")[0] for each in ids if each.startswith(f"p{index}:")]
        often = [walked.count(f"p{index}:{n}") for n in range(num_rows[index])]
        assert max(often) - min(often) <= 1


@given(
    asked=st.lists(st.text("ab", min_size=1, max_size=2), min_size=4, max_size=12),
    num_exemplars=st.integers(1, 3),
    seed=seeds,
    data=st.data(),
)
def test_no_exemplar_asks_what_the_row_or_another_exemplar_asks(asked, num_exemplars, seed, data):
    training = [Row(number=n, prompt=prompt, item={"completion": "x"}) for n, prompt in enumerate(asked)]
    if len(set(asked)) <= num_exemplars:
        return
    worder = Worder(Instructions(few_shot=FewShot(num_exemplars=num_exemplars)), training_rows=training)
    row = data.draw(st.sampled_from([*training, Row(number=99, prompt="held out")]))
    exemplars = worder.exemplars(row, np.random.default_rng(seed))
    questions = [exemplar.prompt for exemplar in exemplars]
    assert row.prompt not in questions
    assert len(set(questions)) == num_exemplars
    assert all(exemplar in training for exemplar in exemplars)


@given(few_shot=st.floats(0, 1), cot=st.floats(0, 1), inversion=st.floats(0, 1), num=st.integers(1, 6), seed=seeds)
def test_forms_come_as_often_as_their_probabilities_say(few_shot, cot, inversion, num, seed):
    instructions = Instructions(
        prompts=tuple(f"{n} {{prompt}}" for n in range(num)),
        few_shot=FewShot(probability=few_shot),
        chain_of_thought=ChainOfThought(probability=cot),
        inversion=Inversion(probability=inversion),
    )
    drawn = forms(instructions, np.random.default_rng(seed).random((20_000, 4)))

    def near(is_so, probability):
        return abs(is_so.mean() - probability) <= 5 * np.sqrt(probability * (1 - probability) / 20_000) + 1e-9

    assert near(drawn.is_inverted_N, inversion)
    assert near(drawn.has_exemplars_N, few_shot)
    assert near(drawn.has_rationale_N, cot * (1 - inversion))
    assert not (drawn.has_rationale_N & drawn.is_inverted_N).any()
    assert all(near((drawn.wording_N == n) & ~drawn.is_inverted_N, (1 - inversion) / num) for n in range(num))


@given(question=texts, answer=texts)
def test_asked_backwards_twice_is_the_question_itself(question, answer):
    instructions = Instructions(inversion=Inversion(probability=1, prompts=("{completion}",)))
    worder, form = Worder(instructions, training_rows=[]), forms(instructions, np.zeros((1, 4)))
    row = Row(number=0, prompt=question, item={"completion": answer})
    backwards, *_ = worder.worded(row, form, 0, generator=np.random.default_rng(0))
    assert (backwards.prompt, backwards.item["completion"]) == (answer, question)
    assert worder.worded(backwards, form, 0, generator=np.random.default_rng(0))[0] == row


@given(text=texts, answer=texts)
def test_whatever_a_row_says_is_worded_as_it_is(text, answer):
    """Braces and backslashes of the data are no wording."""
    instructions = Instructions(prompts=("<{prompt}>",))
    row = Row(number=0, prompt=text, item={"completion": answer})
    worder = Worder(instructions, training_rows=[])
    first, *_ = worder.worded(row, forms(instructions, np.zeros((1, 4))), 0, generator=np.random.default_rng(0))
    assert (first.prompt, first.item["completion"]) == (f"<{text}>", answer)
