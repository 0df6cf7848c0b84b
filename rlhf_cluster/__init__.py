"""RLHF on actors: rollout workers, reward servers, reference scorers and a learner group, driven as one job."""

__version__ = "0.1.0"
