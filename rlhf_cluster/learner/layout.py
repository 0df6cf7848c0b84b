"""How the groups of a batch are laid out for this rank: the same plan on every rank, of which it computes its share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rlhf_cluster.data.packing import Microbatch, build_microbatch, rows_of
from rlhf_cluster.data.plan import plan_microbatches
from rlhf_cluster.learner.settings import LearnerSettings
from rlhf_cluster.records import RolloutGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    settings: LearnerSettings
    rank: int
    num_ranks: int
    reads_last: bool
    """Whether the network reads the last token of a completion."""

    def microbatches(
        self, groups: Sequence[RolloutGroup], *, whole_groups: bool, is_whole: bool = True, after: int = 0
    ) -> Iterator[tuple[Microbatch, bool]]:
        """This rank's, and whether each is its last one of the batch; the first `after` are left out.

        When not `is_whole`, more groups are to come: only what further groups cannot change.
        """
        settings = self.settings
        rows = rows_of(
            groups,
            share_prompt=settings.packing == "prefix",
            max_row_tokens=settings.max_row_tokens,
            whole_groups=whole_groups,
            with_last=self.reads_last,
        )
        planned = plan_microbatches(
            rows, num_ranks=self.num_ranks, budget_tokens=settings.microbatch_tokens, is_whole=is_whole
        )[self.rank]
        for number in range(after, len(planned)):
            microbatch = build_microbatch(groups, planned[number], with_last=self.reads_last)
            yield microbatch, is_whole and number == len(planned) - 1
