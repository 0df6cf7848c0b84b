"""One row worded in many ways, each by its own settings."""

import numpy as np
import pytest
from pydantic import ValidationError

from rlhf_cluster.data.instructions import ChainOfThought, FewShot, Instructions, Inversion, Worder, forms
from rlhf_cluster.data.sources import Row
from rlhf_cluster.errors import DataError

PROMPTS = ("Q: {prompt} A:", "Tell me: {prompt}")


def row(number, prompt, completion, **columns):
    return Row(number=number, prompt=prompt, item={"completion": completion, **columns})


ROWS = [row(n, f"{n} + 1", str(n + 1), rationale=f"After {n} comes {n + 1}.") for n in range(6)]


def form(instructions, *, inverted=1.0, few_shot=1.0, chain_of_thought=1.0, wording=0.0):
    """The numbers drawn for one example; 0 makes a thing happen and 1 does not."""
    return forms(instructions, np.array([[inverted, few_shot, chain_of_thought, wording]]))


def worded(instructions, which, *, row=ROWS[0], seed=0):
    worder = Worder(instructions, training_rows=ROWS)
    return worder.worded(row, which, 0, generator=np.random.default_rng(seed))


@pytest.mark.parametrize(("drawn", "prompt"), [(0.0, "Q: 0 + 1 A:"), (0.49, "Q: 0 + 1 A:"), (0.51, "Tell me: 0 + 1")])
def test_the_question_is_put_in_one_of_the_wordings(drawn, prompt):
    instructions = Instructions(prompts=PROMPTS)
    first, *_ = worded(instructions, form(instructions, wording=drawn))
    assert (first.prompt, first.item["completion"]) == (prompt, "1")


def test_exemplars_are_worded_like_the_question_and_stand_in_front():
    instructions = Instructions(prompts=PROMPTS, few_shot=FewShot(num_exemplars=2, joint=" ", separator="\n"))
    first, *_ = worded(instructions, form(instructions, few_shot=0.0))
    *solved, question = first.prompt.split("\n")
    assert question == "Q: 0 + 1 A:"
    assert len(solved) == 2
    for line in solved:
        asked = int(line.removeprefix("Q: ")[0])
        assert line == f"Q: {asked} + 1 A: {asked + 1}"
    assert first.item["completion"] == "1"


def test_where_it_is_too_long_exemplars_go_one_by_one_and_then_the_wording():
    instructions = Instructions(prompts=PROMPTS, few_shot=FewShot(num_exemplars=2, separator="|"))
    wordings = worded(instructions, form(instructions, few_shot=0.0))
    assert [each.prompt.count("|") for each in wordings] == [2, 1, 0, 0]
    assert wordings[0].prompt.endswith(wordings[1].prompt)
    assert wordings[-1].prompt == "0 + 1"


def test_reasoning_is_asked_for_and_stands_before_the_answer():
    instructions = Instructions(
        chain_of_thought=ChainOfThought(trigger=" Think.", answer="{rationale} So {completion}")
    )
    first, *_, plain = worded(instructions, form(instructions, chain_of_thought=0.0))
    assert first.prompt == "0 + 1 Think."
    assert first.item["completion"] == "After 0 comes 1. So 1"
    assert plain.item["completion"] == "1"


def test_exemplars_of_a_question_with_reasoning_reason_too():
    instructions = Instructions(few_shot=FewShot(num_exemplars=1), chain_of_thought=ChainOfThought())
    first, *_ = worded(instructions, form(instructions, few_shot=0.0, chain_of_thought=0.0))
    assert first.prompt.count("Let's think step by step.") == 2
    assert first.prompt.count("After ") == 1


def test_backwards_the_answer_is_given_the_question_asked_for_and_nothing_reasoned():
    instructions = Instructions(
        inversion=Inversion(prompts=("What gives {completion}?",)), chain_of_thought=ChainOfThought()
    )
    first, *_ = worded(instructions, form(instructions, inverted=0.0, chain_of_thought=0.0))
    assert (first.prompt, first.item["completion"]) == ("What gives 1?", "0 + 1")


def test_the_answer_may_be_in_any_column_which_then_stays_as_it_is():
    instructions = Instructions(
        answer_column="answer", chain_of_thought=ChainOfThought(answer="{rationale} {completion}")
    )
    solved = Row(number=0, prompt="0 + 1", item={"answer": 1, "rationale": "Count."})
    first, *_, plain = worded(instructions, form(instructions, chain_of_thought=0.0), row=solved)
    assert (first.item["answer"], first.item["completion"]) == (1, "Count. 1")
    assert plain.item["completion"] == "1"


def test_rows_without_an_answer_are_still_asked():
    instructions = Instructions(prompts=PROMPTS)
    pair = Row(number=0, prompt="hello", item={"chosen": "hi", "rejected": "no"})
    first, *_ = worded(instructions, form(instructions), row=pair)
    assert (first.prompt, first.item) == ("Q: hello A:", pair.item)


def test_of_rows_that_ask_the_same_none_is_an_exemplar_for_another():
    twins = [row(0, "one", "1"), row(1, "one ", "1!"), row(2, "two", "2")]
    worder = Worder(Instructions(few_shot=FewShot(num_exemplars=1)), training_rows=twins)
    for seed in range(20):
        generator = np.random.default_rng(seed)
        assert [each.number for each in worder.exemplars(twins[0], generator)] == [2]
        assert [each.prompt.strip() for each in worder.exemplars(twins[2], generator)] == ["one"]


def test_too_few_different_questions_are_refused():
    with pytest.raises(
        DataError, match=r"num_exemplars = 2 needs 3 training rows that ask different things.*there are 2"
    ):
        Worder(
            Instructions(few_shot=FewShot(num_exemplars=2)),
            training_rows=[row(0, "a", "1"), row(1, "a", "2"), row(2, "b", "3")],
        )


@pytest.mark.parametrize(
    ("instructions", "message"),
    [
        (Instructions(prompts=("{question}",)), "row 0 has no column 'question'.*the wording '{question}'"),
        (Instructions(prompts=("{ration}",)), "did you mean 'rationale'"),
        (Instructions(chain_of_thought=ChainOfThought(rationale_column="steps")), "no column 'steps'"),
        (Instructions(inversion=Inversion(), answer_column="answer"), "names; it has"),
    ],
)
def test_a_wording_that_names_a_column_that_a_row_lacks_is_refused(instructions, message):
    bare = Row(number=0, prompt="0 + 1", item={"rationale": "Count."})
    with pytest.raises(DataError, match=message):
        Worder(instructions, training_rows=[]).check(bare)


def test_chat_messages_cannot_be_worded():
    chat = Row(number=4, prompt=({"role": "user", "content": "hello"},))
    with pytest.raises(DataError, match="row 4 holds chat messages"):
        Worder(Instructions(), training_rows=[]).check(chat)


@pytest.mark.parametrize("wording", ["{prompt.__class__}", "{0}", "{prompt!r}", "{prompt:>10}", "{prompt[0]}", "{}"])
def test_a_wording_can_name_columns_and_nothing_else(wording):
    with pytest.raises(ValidationError, match="a column is written as"):
        Instructions(prompts=(wording,))


def test_a_wording_without_a_column_is_refused_and_braces_can_be_written():
    with pytest.raises(ValidationError, match="names no column"):
        Instructions(prompts=("Say something.",))
    instructions = Instructions(prompts=("{{x}} {prompt}",))
    assert worded(instructions, form(instructions))[0].prompt == "{x} 0 + 1"
