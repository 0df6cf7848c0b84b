"""Algorithms as values: hyper-parameters, what they need, and pure credit and loss. A new one is one file."""

from rlhf_cluster.algorithms.base import Algorithm, GroupLoss, ScoreColumns, TokenColumns, TokenLoss
from rlhf_cluster.algorithms.cispo import CISPO
from rlhf_cluster.algorithms.dapo import DAPO
from rlhf_cluster.algorithms.dpo import DPO
from rlhf_cluster.algorithms.dr_grpo import DrGRPO
from rlhf_cluster.algorithms.grpo import GRPO
from rlhf_cluster.algorithms.gspo import GSPO
from rlhf_cluster.algorithms.kto import KTO
from rlhf_cluster.algorithms.orpo import ORPO
from rlhf_cluster.algorithms.ppo import PPO
from rlhf_cluster.algorithms.reinforce_pp import ReinforcePP
from rlhf_cluster.algorithms.reward_model import RewardModel
from rlhf_cluster.algorithms.rloo import RLOO
from rlhf_cluster.algorithms.sft import SFT
from rlhf_cluster.algorithms.simpo import SimPO
from rlhf_cluster.algorithms.table import ALGORITHMS, AlgorithmSettings, resolve, type_name

__all__ = [
    "ALGORITHMS",
    "CISPO",
    "DAPO",
    "DPO",
    "GRPO",
    "GSPO",
    "KTO",
    "ORPO",
    "PPO",
    "RLOO",
    "SFT",
    "Algorithm",
    "AlgorithmSettings",
    "DrGRPO",
    "GroupLoss",
    "ReinforcePP",
    "RewardModel",
    "ScoreColumns",
    "SimPO",
    "TokenColumns",
    "TokenLoss",
    "resolve",
    "type_name",
]
