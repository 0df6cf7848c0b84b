"""Algorithms as values: hyper-parameters, what they need, and pure credit and loss. A new one is one file."""

from rlhf_cluster.algorithms.base import Algorithm, GroupLoss, ScoreColumns, TokenColumns, TokenLoss
from rlhf_cluster.algorithms.grpo import GRPO
from rlhf_cluster.algorithms.sft import SFT
from rlhf_cluster.algorithms.table import ALGORITHMS, AlgorithmSettings, resolve, type_name

__all__ = [
    "ALGORITHMS",
    "GRPO",
    "SFT",
    "Algorithm",
    "AlgorithmSettings",
    "GroupLoss",
    "ScoreColumns",
    "TokenColumns",
    "TokenLoss",
    "resolve",
    "type_name",
]
