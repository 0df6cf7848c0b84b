"""Small tokenizers with real chat templates: every word, space and line break is a token, so nothing is lost."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import PreTrainedTokenizerFast

WORDS = (
    *("\n", " ", "user", "assistant", "system", "hello", "hi", "how", "are", "you", "fine", "thanks", "be", "kind"),
    *("yes", "no", "one", "two", "three", "four"),
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CLOSED_BY_EOS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% else %}<eos>{% endif %}"
)
WITHOUT_ENDS = (
    "{% for m in messages %}{{ m.role }} {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)
FORGETS_ANSWERS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content if m.role != 'assistant' or loop.last else 'yes' }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def chat_tokenizer(chat_template: str = CHATML) -> PreTrainedTokenizerFast:
    ids = {word: index for index, word in enumerate(["<unk>", "<eos>", *WORDS])}
    words = Tokenizer(WordLevel(ids, unk_token="<unk>"))
    words.pre_tokenizer = Split(Regex(r"\n| |[^\s]+"), "isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="<unk>",
        eos_token="<eos>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def said(tokenizer, token_ids) -> str:
    """Token ids as text, nothing added between them."""
    return "".join(tokenizer.convert_ids_to_tokens([int(token) for token in token_ids]))
