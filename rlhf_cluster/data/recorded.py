"""Recorded data as rollout groups: demonstrations, preference pairs and ranked answers, as if they had been generated.

row -> recording (recordings.py: which columns mean what) -> tokens (spans.py) -> group, no longer than allowed
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce
from typing import Any, Literal

import numpy as np

from rlhf_cluster.data.draws import Drawn, Draws
from rlhf_cluster.data.mixture_report import MixtureReport, report_of
from rlhf_cluster.data.open_draws import open_draws
from rlhf_cluster.data.recordings import is_undecided, recording_of
from rlhf_cluster.data.settings import DataSettings, Source, TooLong
from rlhf_cluster.data.sources import Row
from rlhf_cluster.data.spans import Completion, Encoded, make_encode
from rlhf_cluster.errors import DataError, ExampleTooLong
from rlhf_cluster.records import Prompt, RolloutGroup

RECORDED = "recorded"
"""The `worker_id` of what no worker generated."""
NUM_KEPT = 16_384
"""Rows whose tokens a stream keeps, so that steps and later epochs do not tokenise again: at 300 tokens, 70 MB."""

Record = Callable[[Row], RolloutGroup]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCounts:
    """What a source holds, in rows and in tokens."""

    num_rows: int
    """Rows that are drawn from."""
    num_skipped: int
    """Rows left out because they were too long."""
    num_undecided: int
    """Pairs left out because nobody said which is better."""
    num_cut: int
    """Rows of which a completion was cut."""
    num_tokens: int
    """Prompts and completions of the rows that are drawn from."""
    num_trained_tokens: int
    """Of those, the ones with a loss."""

    def plus(self, other: RecordedCounts) -> RecordedCounts:
        return RecordedCounts(
            **{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)}
        )


def make_recorder(
    tokenizer: Any,
    *,
    template: Literal["raw", "chat"] = "raw",
    system: str | None = None,
    max_tokens: int,
    too_long: TooLong = "refuse",
) -> Record:
    """The function from a row to its group, with `request_id` 0 and the row's key as `prompt_id`.

    An example (the prompt and its longest completion) of more than `max_tokens` raises `ExampleTooLong`, or with
    `too_long = "cut"` loses the end of its completion. A bad row raises `DataError`; both name the row.
    """
    encode = make_encode(tokenizer, template=template, system=system)

    def record(row: Row) -> RolloutGroup:
        recording = recording_of(row)
        encoded = encode(recording.prompt, recording.completions, row.where)
        completions = _fitted(encoded, row, max_tokens=max_tokens, cut=too_long == "cut")
        prompt = Prompt(prompt_id=row.key, text=encoded.text, token_ids=encoded.token_ids, item=recording.item)
        return _group(prompt, completions, whole=encoded.completions, rewards=recording.rewards)

    return record


def _fitted(encoded: Encoded, row: Row, *, max_tokens: int, cut: bool) -> tuple[Completion, ...]:
    room = max_tokens - len(encoded.token_ids)
    longest = max(len(completion.token_ids) for completion in encoded.completions)
    if longest <= room:
        return encoded.completions
    if cut and room > 0 and all(completion.is_trained[:room].any() for completion in encoded.completions):
        return tuple(
            replace(completion, token_ids=completion.token_ids[:room], is_trained=completion.is_trained[:room])
            for completion in encoded.completions
        )
    raise ExampleTooLong(
        f"{row.where}: its prompt of {len(encoded.token_ids)} tokens and its completion of {longest} are more "
        f"than the {max_tokens} allowed; shorten or remove the row, raise data.max_tokens (no further than the model's "
        "context), or " + ('set data.too_long = "skip"' if cut else 'set data.too_long to "skip" or "cut"')
    )


def _group(
    prompt: Prompt, completions: Sequence[Completion], *, whole: Sequence[Completion], rewards: Sequence[float] | None
) -> RolloutGroup:
    token_ids = np.concatenate([completion.token_ids for completion in completions])
    is_trained = np.concatenate([completion.is_trained for completion in completions])
    return RolloutGroup(
        request_id=0,
        prompt=prompt,
        worker_id=RECORDED,
        lengths=np.array([len(completion.token_ids) for completion in completions], dtype=np.int32),
        token_ids=token_ids,
        logprobs=np.zeros(len(token_ids), dtype=np.float32),
        versions=np.zeros(0, dtype=np.int32),
        finish_reasons=tuple(
            "length" if len(kept.token_ids) < len(all_of_it.token_ids) else "stop"
            for kept, all_of_it in zip(completions, whole, strict=True)
        ),
        texts=tuple(completion.text for completion in completions),
        rewards=None if rewards is None else np.array(rewards, dtype=np.float32),
        loss_mask=None if is_trained.all() else is_trained,
    )


class RecordedStream:
    """`stream[n]` is the n-th example, from 0 and without end: the group of `draws[n]`, with `request_id` n."""

    def __init__(
        self,
        draws: Draws,
        record: Record,
        *,
        counts: RecordedCounts,
        known: Mapping[str, RolloutGroup] | None = None,
    ) -> None:
        """`known` are groups by the keys of their rows, recorded before."""
        self._draws = draws
        self._record = record
        self._known = known or {}
        self.counts = counts

    def __getitem__(self, number: int) -> RolloutGroup:
        """Raises `DataError` for a bad row."""
        drawn = self._draws[number]
        group = self._known.get(drawn.key) or self._recorded(drawn)
        return replace(group, request_id=number, prompt=replace(group.prompt, prompt_id=drawn.prompt_id))

    @property
    def num_rows(self) -> int:
        return len(self._draws.rows)

    def report(self, num: int) -> MixtureReport | None:
        """What the first `num` examples are of; None for a source that is no mixture."""
        return report_of(self._draws, num, num_tokens=self._num_tokens)

    def _num_tokens(self, number: int) -> int:
        group = self[number]
        return len(group.prompt.token_ids) + group.num_tokens

    def _recorded(self, drawn: Drawn) -> RolloutGroup:
        """In the first wording that is short enough."""
        *longer, last = drawn.row, *drawn.plainer
        for row in longer:
            try:
                return self._record(row)
            except ExampleTooLong:
                continue
        return self._record(last)


def open_recorded(
    data: DataSettings, source: Source, tokenizer: Any, *, seed: int, max_context: int, in_order: bool = False
) -> RecordedStream:
    """The examples of `source` (`data.train` or `data.eval`) as `data` says they are worded, bounded and shuffled.

    Every row is tokenised once, so that a bad one is named now and not hours into the job. `max_context` is the
    model's, in tokens. `in_order` keeps the source's order, for evaluation.
    """
    record = make_recorder(
        tokenizer,
        template=data.template,
        system=data.system,
        max_tokens=min(max_context, data.max_tokens or max_context),
        too_long=data.too_long,
    )
    counted: list[RecordedCounts] = []
    known: dict[str, RolloutGroup] = {}

    def record_and_keep(row: Row) -> RolloutGroup:
        group = record(row)
        if len(known) < NUM_KEPT:
            known[row.key] = group
        return group

    def admit(rows: list[Row]) -> list[Row]:
        kept, counts = usable(rows, record_and_keep, skip=data.too_long == "skip")
        counted.append(counts)
        return kept

    draws = open_draws(
        source,
        seed=seed,
        shuffle=data.shuffle and not in_order,
        training=None if source == data.train else data.train,
        admit=admit,
    )
    return RecordedStream(draws, record, counts=reduce(RecordedCounts.plus, counted), known=known)


def usable(rows: Sequence[Row], record: Record, *, skip: bool) -> tuple[list[Row], RecordedCounts]:
    """The rows that can be recorded. Raises the first bad one's error; with `skip` too long ones are left out, and
    pairs that nobody decided always are."""
    kept, num_cut, num_tokens, num_trained = [], 0, 0, 0
    decided = [row for row in rows if not is_undecided(row)]
    if not decided:
        raise DataError(f"none of the {len(rows)} pairs is decided: they need labels before anything can be learned")
    for row in decided:
        try:
            group = record(row)
        except ExampleTooLong:
            if not skip:
                raise
            continue
        kept.append(row)
        num_cut += "length" in group.finish_reasons
        num_tokens += len(group.prompt.token_ids) + group.num_tokens
        num_trained += group.num_trained_tokens
    if not kept:
        raise DataError(f"all {len(decided)} rows are too long: raise data.max_tokens or shorten them")
    return kept, RecordedCounts(
        num_rows=len(kept),
        num_skipped=len(decided) - len(kept),
        num_undecided=len(rows) - len(decided),
        num_cut=num_cut,
        num_tokens=num_tokens,
        num_trained_tokens=num_trained,
    )
