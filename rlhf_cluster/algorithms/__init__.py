"""Algorithms as values: hyper-parameters, what they need, and pure credit and loss. A new one is one file."""

from rlhf_cluster.algorithms.base import Algorithm, GroupLoss, ScoreColumns, TokenColumns, TokenLoss
from rlhf_cluster.algorithms.dpo import DPO
from rlhf_cluster.algorithms.grpo import GRPO
from rlhf_cluster.algorithms.kto import KTO
from rlhf_cluster.algorithms.orpo import ORPO
from rlhf_cluster.algorithms.reward_model import RewardModel
from rlhf_cluster.algorithms.sft import SFT
from rlhf_cluster.algorithms.simpo import SimPO
from rlhf_cluster.algorithms.table import ALGORITHMS, AlgorithmSettings, resolve, type_name

__all__ = [
    "ALGORITHMS",
    "DPO",
    "GRPO",
    "KTO",
    "ORPO",
    "SFT",
    "Algorithm",
    "AlgorithmSettings",
    "GroupLoss",
    "RewardModel",
    "ScoreColumns",
    "SimPO",
    "TokenColumns",
    "TokenLoss",
    "resolve",
    "type_name",
]
