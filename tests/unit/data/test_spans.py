"""Which tokens of a chat are trained on, with templates as they are in the wild."""

import numpy as np
import pytest

from rlhf_cluster.data.sources import Row
from rlhf_cluster.data.spans import make_encode
from rlhf_cluster.data.template import make_tokenize
from rlhf_cluster.errors import DataError
from rlhf_cluster.models.word_world import build_tokenizer

from .chat_tokenizers import CLOSED_BY_EOS, FORGETS_ANSWERS, WITHOUT_ENDS, chat_tokenizer, said

USER = {"role": "user", "content": "how are you"}
FINE = {"role": "assistant", "content": "fine thanks"}
AGAIN = {"role": "user", "content": "yes"}
BYE = {"role": "assistant", "content": "hi"}


def encoded(tokenizer, prompt, *completions, system=None):
    return make_encode(tokenizer, template="chat", system=system)(prompt, completions, "row 0")


def trained(tokenizer, completion):
    return said(tokenizer, completion.token_ids[completion.is_trained])


def test_the_prompt_has_the_tokens_that_a_rollout_of_it_would_have():
    tokenizer = chat_tokenizer()
    text, token_ids = make_tokenize(tokenizer, template="chat", system="be kind")(Row(number=0, prompt="hello"))
    found = encoded(tokenizer, "hello", "hi", system="be kind")
    assert found.text == text
    assert found.token_ids.tolist() == token_ids.tolist()


def test_an_answer_is_trained_through_its_end_of_turn_and_what_the_template_writes_after_is_left_out():
    tokenizer = chat_tokenizer()
    (completion,) = encoded(tokenizer, "how are you", "fine thanks").completions
    assert said(tokenizer, completion.token_ids) == "fine thanks<|im_end|>"
    assert completion.is_trained.all()
    assert completion.text == "fine thanks"


def test_of_several_turns_only_the_assistants_are_trained():
    tokenizer = chat_tokenizer()
    (completion,) = encoded(tokenizer, (USER,), (FINE, AGAIN, BYE)).completions
    whole = "fine thanks<|im_end|>\n<|im_start|>user\nyes<|im_end|>\n<|im_start|>assistant\nhi<|im_end|>"
    assert said(tokenizer, completion.token_ids) == whole
    assert trained(tokenizer, completion) == "fine thanks<|im_end|>hi<|im_end|>"


def test_a_template_that_ends_every_chat_with_eos_trains_the_last_answer_to_end_with_it():
    tokenizer = chat_tokenizer(CLOSED_BY_EOS)
    (completion,) = encoded(tokenizer, (USER,), (FINE, AGAIN, BYE)).completions
    assert trained(tokenizer, completion) == "fine thanks<|im_end|>hi<|im_end|>\n<eos>"


def test_a_template_without_an_end_of_turn_gets_the_tokenizers_end_token_after_the_last_answer():
    tokenizer = chat_tokenizer(WITHOUT_ENDS)
    (completion,) = encoded(tokenizer, (USER,), (FINE, AGAIN, BYE)).completions
    assert trained(tokenizer, completion) == "fine thanks\nhi\n<eos>"


def test_an_unknown_word_ends_no_turn():
    tokenizer = chat_tokenizer(WITHOUT_ENDS)
    (completion,) = encoded(tokenizer, (USER,), "zebra hi").completions
    assert said(tokenizer, completion.token_ids) == "<unk> hi\n<eos>"


def test_a_template_that_words_earlier_turns_anew_is_refused():
    tokenizer = chat_tokenizer(FORGETS_ANSWERS)
    assert encoded(tokenizer, (USER,), (FINE,)).completions[0].is_trained.all()
    with pytest.raises(DataError, match="row 0: the chat template words the first 2 messages differently once others"):
        encoded(tokenizer, (USER,), (FINE, AGAIN, BYE))


def test_several_completions_share_the_prompt():
    tokenizer = chat_tokenizer()
    found = encoded(tokenizer, "how are you", "fine", (BYE,), "")
    assert [said(tokenizer, each.token_ids) for each in found.completions] == [
        *("fine<|im_end|>", "hi<|im_end|>", "<|im_end|>")
    ]


def test_raw_text_is_the_prompt_with_its_begin_token_and_the_completion_with_its_end_token():
    tokenizer = build_tokenizer()
    found = make_encode(tokenizer, template="raw", system=None)("how do i bake bread ?", ["sure friend"], "row 0")
    assert tokenizer.decode(found.token_ids) == "<bos> how do i bake bread ?"
    assert tokenizer.decode(found.completions[0].token_ids) == "sure friend <eos>"


def test_raw_text_cannot_hold_messages():
    encode = make_encode(build_tokenizer(), template="raw", system=None)
    with pytest.raises(DataError, match=r'row 3 holds chat messages: set data\.template = "chat"'):
        encode("how do i ?", [(FINE,)], "row 3")


def test_a_tokenizer_that_cannot_end_a_completion_is_refused():
    tokenizer = build_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(DataError, match="has no end token"):
        make_encode(tokenizer, template="raw", system=None)


def test_smollm2s_own_template_gives_the_tokens_of_the_whole_chat(smollm2_tokenizer):
    """Cut into pieces or not, the tokens are the same; so nothing is lost at the seams."""
    chat = [USER, FINE, AGAIN, {"role": "assistant", "content": "Good night, then!\n\nSleep well."}]
    found = encoded(smollm2_tokenizer, tuple(chat[:1]), tuple(chat[1:]))
    whole = smollm2_tokenizer(smollm2_tokenizer.apply_chat_template(chat, tokenize=False))["input_ids"]
    tokens = np.concatenate([found.token_ids, found.completions[0].token_ids]).tolist()
    assert tokens == whole[: len(tokens)]
    assert smollm2_tokenizer.decode(whole[len(tokens) :]) == "\n"
    spoken = found.completions[0].token_ids[found.completions[0].is_trained]
    assert smollm2_tokenizer.decode(spoken) == "fine thanks<|im_end|>Good night, then!\n\nSleep well.<|im_end|>"
