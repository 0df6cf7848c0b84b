"""A sequence classifier with one output, seen as what its training needs: a score for each completion.

Transformers pools at the last token that is not the padding; here the layout says which token is a completion's last.
Both agree as long as the padding does not occur in the text, so a checkpoint names such an id as its `pad_token_id`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rlhf_cluster.data.packing import Microbatch
from rlhf_cluster.models import attention
from rlhf_cluster.models.lora import config_of, without_adapters
from rlhf_cluster.models.outputs import Outputs
from rlhf_cluster.models.policy import hidden_states

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class RewardNetwork(nn.Module):
    """Wraps `AutoModelForSequenceClassification`, a linear `score` without bias on a decoder's last hidden state."""

    reads_last = True
    """Whether the last token of a completion is an input."""

    def __init__(self, classifier: PreTrainedModel) -> None:
        super().__init__()
        classifier.set_attn_implementation(attention.NAME)
        self.classifier: Any = classifier

    @property
    def exported(self) -> PreTrainedModel:
        """What is saved in Hugging Face format."""
        return self.classifier

    def bare(self) -> RewardNetwork:
        """To be called with published weights: this network, or where it has adapters one that never had any."""
        return self if config_of(self.classifier) is None else RewardNetwork(without_adapters(self.classifier))

    def beside(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Trained parameters that are not exported: none."""
        return iter(())

    def forward(self, microbatch: Microbatch, *, want_entropy: bool = False) -> Outputs:
        """`want_entropy` asks for nothing here: a reward model chooses no tokens."""
        hidden_BTD = hidden_states(self.classifier.base_model, microbatch)
        last_S = torch.from_numpy(microbatch.last_S).to(hidden_BTD.device)
        # In full precision whatever autocast says: what counts is the small difference of two scores.
        with torch.autocast(hidden_BTD.device.type, enabled=False):
            return Outputs(scores_S=self.classifier.score(hidden_BTD.flatten(0, 1)[last_S].float())[:, 0])
