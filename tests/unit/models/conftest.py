"""A tokenizer for the tiny model, where a test has to have one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def tokenizer_files() -> Callable[[Path], None]:
    """Writes them into a directory."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    def write(path: Path) -> None:
        words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(64)}, unk_token="w63"))
        PreTrainedTokenizerFast(tokenizer_object=words, bos_token="w0", eos_token="w1").save_pretrained(path)

    return write
