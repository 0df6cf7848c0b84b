"""A judge that is a language model of this machine: its next token after the question, read from the logits.

It stands where a rollout worker of another model would: nothing is generated, so one forward pass a batch is all that
it takes. It runs in a thread beside the driver.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlhf_cluster.compute_thread import ComputeThread
from rlhf_cluster.data.constitution import Principle
from rlhf_cluster.errors import ModelError
from rlhf_cluster.models.load import load_causal_lm, load_tokenizer
from rlhf_cluster.models.registry import resolve
from rlhf_cluster.rewards.judges.base import Comparison, Judgement, averaged
from rlhf_cluster.rewards.judges.letters import letter_preference
from rlhf_cluster.rewards.judges.settings import LocalJudgeSettings
from rlhf_cluster.rewards.judges.wording import LETTERS, as_plain_text, question
from rlhf_cluster.rewards.sample import Failure, failure_of

NUM_SHOWN = 5
"""Likeliest tokens beside the letters that are looked at, to say what the model would rather answer."""


class LocalJudge:
    """Belongs to one event loop. `start` before `compare`."""

    def __init__(self, settings: LocalJudgeSettings, principles: Sequence[Principle] = ()) -> None:
        self._settings = settings
        self._principles = tuple(principles)
        self._thread = ComputeThread("judge", role="judge")
        self._model: Any = None
        self._tokenizer: Any = None

    async def start(self) -> None:
        await self._thread.run("loading the model", self._load)

    async def compare(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        both = [each for comparison in comparisons for each in (comparison, comparison.swapped)]
        answers = await self._thread.run(f"comparing {len(comparisons)} pairs", self._p_first, both)
        return [averaged(*pair) for pair in zip(answers[::2], answers[1::2], strict=True)]

    async def close(self) -> None:
        await self._thread.close(self._free)

    def _load(self) -> None:
        import torch

        path = resolve(self._settings.model)
        self._tokenizer = load_tokenizer(path)
        self._letter_ids = [self._ids_of(letter) for letter in LETTERS]
        if not all(self._letter_ids):
            raise ModelError(f"{self._settings.model} cannot judge: its tokenizer has no token for A or for B")
        dtype = getattr(torch, self._settings.dtype)
        model = load_causal_lm(path, dtype=dtype).requires_grad_(False)
        self._model = model.to("cuda" if torch.cuda.is_available() else "cpu")
        context = model.config.get_text_config().max_position_embeddings
        self._max_tokens = min(self._settings.max_tokens or context, context)

    def _free(self) -> None:
        self._model = self._tokenizer = None

    def _ids_of(self, letter: str) -> list[int]:
        """The letter as one token, with and without a space in front; the unknown token is none."""
        spelled = [self._tokenizer.encode(text, add_special_tokens=False) for text in (letter, f" {letter}")]
        unknown = self._tokenizer.unk_token_id
        return sorted({ids[0] for ids in spelled if len(ids) == 1 and ids[0] != unknown})

    def _p_first(self, comparisons: Sequence[Comparison]) -> list[float | Failure]:
        token_ids = [self._token_ids(each) for each in comparisons]
        answers: list[float | Failure] = [self._too_long(len(ids)) for ids in token_ids]
        fitting = sorted(
            (i for i, ids in enumerate(token_ids) if len(ids) <= self._max_tokens), key=lambda i: len(token_ids[i])
        )
        for first in range(0, len(fitting), self._settings.batch_size):
            batch = fitting[first : first + self._settings.batch_size]
            try:
                answered = self._forward([token_ids[i] for i in batch])
            except RuntimeError as error:  # torch's word for memory that is out, among others
                answered = [failure_of(error)] * len(batch)
            for i, answer in zip(batch, answered, strict=True):
                answers[i] = answer
        return answers

    def _token_ids(self, comparison: Comparison) -> list[int]:
        asked, tokenizer = question(comparison, self._principles), self._tokenizer
        if not getattr(tokenizer, "chat_template", None):
            return tokenizer.encode(as_plain_text(asked))
        chat = [{"role": "user", "content": asked}]
        text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        return tokenizer.encode(text, add_special_tokens=False)

    def _too_long(self, num_tokens: int) -> Failure:
        message = f"the comparison is {num_tokens} tokens long, at most {self._max_tokens} fit"
        return Failure(kind="raised", message=message)

    def _forward(self, token_ids: Sequence[Sequence[int]]) -> list[float | Failure]:
        """P(option A) for each of B questions, padded on the right to T."""
        import torch

        device = self._model.device
        last_B = torch.tensor([len(ids) - 1 for ids in token_ids], device=device)
        input_ids_BT = torch.zeros((len(token_ids), int(last_B.max()) + 1), dtype=torch.long)
        for row, ids in zip(input_ids_BT, token_ids, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        mask_BT = (torch.arange(input_ids_BT.shape[1], device=device) <= last_B[:, None]).long()
        with torch.inference_mode():
            trunk = self._model.base_model
            hidden_BTD = trunk(input_ids=input_ids_BT.to(device), attention_mask=mask_BT, use_cache=False)[0]
            logits_BV = self._model.get_output_embeddings()(hidden_BTD[range(len(last_B)), last_B])
            logprobs_BV = logits_BV.float().log_softmax(-1).cpu()
        return [self._read(logprobs_V) for logprobs_V in logprobs_BV]

    def _read(self, logprobs_V: Any) -> float | Failure:
        likeliest = set(logprobs_V.topk(min(NUM_SHOWN, len(logprobs_V))).indices.tolist())
        looked_at = sorted(likeliest.union(*self._letter_ids))
        pairs = [(self._tokenizer.decode([i]), float(logprobs_V[i])) for i in looked_at]
        return letter_preference(pairs, min_mass=self._settings.min_letter_mass)
