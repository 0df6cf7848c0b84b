import numpy as np
import pytest

from rlhf_cluster.data.sources import Row
from rlhf_cluster.data.template import make_tokenize
from rlhf_cluster.errors import DataError
from rlhf_cluster.models.word_world import build_tokenizer

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"
    "{{ m.role }} : {{ m.content }} {% endfor %}{% if add_generation_prompt %}assistant :{% endif %}"
)


@pytest.fixture
def tokenizer():
    return build_tokenizer()


@pytest.fixture
def chat_tokenizer(tokenizer):
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def test_raw_is_the_text_as_it_is_with_the_tokenizers_begin_token(tokenizer):
    text, token_ids = make_tokenize(tokenizer)(Row(number=0, prompt="how do i bake bread ?"))
    assert text == "how do i bake bread ?"
    assert token_ids.dtype == np.int32
    assert tokenizer.decode(token_ids) == "<bos> how do i bake bread ?"


def test_chat_ends_where_the_assistant_has_to_answer_and_adds_no_second_begin_token(chat_tokenizer):
    text, token_ids = make_tokenize(chat_tokenizer, template="chat")(Row(number=0, prompt="hello friend"))
    assert text == "user : hello friend assistant :"
    assert len(token_ids) == 6
    assert chat_tokenizer.bos_token_id not in token_ids


def test_the_system_message_goes_in_front_unless_the_row_has_its_own(chat_tokenizer):
    tokenize = make_tokenize(chat_tokenizer, template="chat", system="take care")
    assert tokenize(Row(number=0, prompt="hello"))[0].startswith("system : take care user : hello")
    own = ({"role": "system", "content": "shut up"}, {"role": "user", "content": "hello"})
    assert tokenize(Row(number=0, prompt=own))[0].startswith("system : shut up user : hello")


def test_chat_without_a_template_is_refused_before_any_row(tokenizer):
    with pytest.raises(DataError, match=r'has no chat template: set data\.template = "raw"'):
        make_tokenize(tokenizer, template="chat")


def test_chat_messages_need_the_chat_template(tokenizer):
    with pytest.raises(DataError, match=r'row 3 holds chat messages: set data\.template = "chat"'):
        make_tokenize(tokenizer)(Row(number=3, prompt=({"role": "user", "content": "hello"},)))


def test_a_chat_that_the_template_refuses_is_named(chat_tokenizer):
    with pytest.raises(DataError, match="row 4: the chat template refuses it: no tools here"):
        make_tokenize(chat_tokenizer, template="chat")(Row(number=4, prompt=({"role": "tool", "content": "x"},)))


def test_a_chat_that_was_already_answered_is_refused(chat_tokenizer):
    chat = ({"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"})
    with pytest.raises(DataError, match="row 5 ends with the assistant's message"):
        make_tokenize(chat_tokenizer, template="chat")(Row(number=5, prompt=chat))
