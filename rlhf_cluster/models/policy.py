"""A causal language model seen as what training needs of it: log-probabilities of given tokens, and nothing else.

A critic may stand beside it: what it says is read at the same hidden states, of the policy's own trunk or of one of its
own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn

from rlhf_cluster.data.packing import PADDING, TRUNK, Microbatch
from rlhf_cluster.functional.logprobs import chosen_logprobs
from rlhf_cluster.models import attention
from rlhf_cluster.models.lora import config_of, without_adapters
from rlhf_cluster.models.outputs import Outputs

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PolicyNetwork(nn.Module):
    """Wraps a Hugging Face causal LM; `forward` returns log-probabilities, never logits for the whole row.

    The head runs on the N hidden states that predict a completion token, in chunks, so memory holds at most
    `logit_chunk_rows` rows of the vocabulary. Being the root module, it works under DDP and FSDP2 alike.
    """

    reads_last = False
    """Whether the last token of a completion is an input."""

    def __init__(
        self,
        language_model: PreTrainedModel,
        *,
        temperature: float = 1.0,
        logit_chunk_rows: int = 1024,
        critic: Critic | None = None,
    ) -> None:
        super().__init__()
        language_model.set_attn_implementation(attention.NAME)
        self.language_model = language_model
        self.critic = critic
        self.temperature = temperature
        self.logit_chunk_rows = logit_chunk_rows

    @property
    def exported(self) -> PreTrainedModel:
        """What is published and saved in Hugging Face format."""
        return self.language_model

    def bare(self) -> PolicyNetwork:
        """To be called with published weights, as engines prove them: without adapters or critic, at temperature 1."""
        adapted = config_of(self.language_model) is not None
        bare = without_adapters(self.language_model) if adapted else self.language_model
        return PolicyNetwork(bare, logit_chunk_rows=self.logit_chunk_rows)

    def beside(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Trained parameters that are not exported: a checkpoint keeps them beside the policy."""
        if self.critic is not None:
            yield from self.critic.named_parameters(prefix="critic")

    def forward(self, microbatch: Microbatch, *, want_entropy: bool = False) -> Outputs:
        hidden_ND = chosen_states(self.language_model.base_model, microbatch)
        logprobs_N, entropy_N = chosen_logprobs(
            hidden_ND,
            self.language_model.get_output_embeddings().weight,
            torch.from_numpy(microbatch.target_N).to(hidden_ND.device),
            temperature=self.temperature,
            chunk=self.logit_chunk_rows,
            want_entropy=want_entropy,
        )
        values_N = None if self.critic is None else self.critic(hidden_ND, microbatch)
        return Outputs(logprobs_N=logprobs_N, entropy_N=entropy_N, values_N=values_N)


class Critic(nn.Module):
    """A linear head without bias on the hidden state at which a token is chosen; it begins at zero, so that the first
    values are those of a critic that knows nothing (and not noise)."""

    def __init__(self, hidden_size: int, *, trunk: PreTrainedModel | None = None) -> None:
        """`trunk` None reads the policy's own hidden states, which the value loss then trains too."""
        super().__init__()
        if trunk is not None:
            trunk.set_attn_implementation(attention.NAME)
        self.trunk = trunk
        self.head = nn.Linear(hidden_size, 1, bias=False)
        nn.init.zeros_(self.head.weight)

    def forward(self, policy_hidden_ND: torch.Tensor, microbatch: Microbatch) -> torch.Tensor:
        """float32 [N]."""
        hidden_ND = policy_hidden_ND if self.trunk is None else chosen_states(self.trunk, microbatch)
        # In full precision whatever autocast says: returns are compared with it to the third digit.
        with torch.autocast(hidden_ND.device.type, enabled=False):
            return self.head(hidden_ND.float())[:, 0]


def chosen_states(trunk: nn.Module, microbatch: Microbatch) -> torch.Tensor:
    """[N, D]: the last hidden states that predict the microbatch's N tokens."""
    hidden_BTD = hidden_states(trunk, microbatch)
    return hidden_BTD.flatten(0, 1)[torch.from_numpy(microbatch.source_N).to(hidden_BTD.device)]


def hidden_states(trunk: nn.Module, microbatch: Microbatch) -> torch.Tensor:
    """[B, T, D], each branch seeing the trunk of its row and itself."""
    device = next(trunk.parameters()).device
    return trunk(
        input_ids=torch.from_numpy(microbatch.token_ids_BT).to(device),
        position_ids=torch.from_numpy(microbatch.position_ids_BT).to(device),
        attention_mask=tree_mask(torch.from_numpy(microbatch.branch_BT).to(device)),
        use_cache=False,
    ).last_hidden_state


def tree_mask(branch_BT: torch.Tensor) -> torch.Tensor:
    """bool [B,1,T,T]: a token sees earlier tokens of the prompt and of its own branch; padding sees only itself."""
    num_tokens = branch_BT.shape[1]
    earlier_TT = torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=branch_BT.device).tril()
    key_B1T, query_BT1 = branch_BT[:, None, :], branch_BT[:, :, None]
    seen_BTT = earlier_TT & ((key_B1T == TRUNK) | (key_B1T == query_BT1)) & (query_BT1 != PADDING)
    itself_TT = torch.eye(num_tokens, dtype=torch.bool, device=branch_BT.device)
    return (seen_BTT | itself_TT)[:, None]
