"""A causal language model seen as what training needs of it: log-probabilities of given tokens, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from rlhf_cluster.data.packing import PADDING, TRUNK, Microbatch
from rlhf_cluster.functional.logprobs import chosen_logprobs
from rlhf_cluster.models import attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PolicyNetwork(nn.Module):
    """Wraps a Hugging Face causal LM; `forward` returns log-probabilities, never logits for the whole row.

    The head runs on the N hidden states that predict a completion token, in chunks, so memory holds at most
    `logit_chunk_rows` rows of the vocabulary. Being the root module, it works under DDP and FSDP2 alike.
    """

    def __init__(
        self, language_model: PreTrainedModel, *, temperature: float = 1.0, logit_chunk_rows: int = 1024
    ) -> None:
        super().__init__()
        language_model.set_attn_implementation(attention.NAME)
        self.language_model = language_model
        self.temperature = temperature
        self.logit_chunk_rows = logit_chunk_rows

    def forward(self, microbatch: Microbatch) -> torch.Tensor:
        """float32 [N]: log p(target_n | its prefix) at the sampling temperature."""
        device = self.language_model.device
        branch_BT = torch.from_numpy(microbatch.branch_BT).to(device)
        hidden_BTD = self.language_model.base_model(
            input_ids=torch.from_numpy(microbatch.token_ids_BT).to(device),
            position_ids=torch.from_numpy(microbatch.position_ids_BT).to(device),
            attention_mask=tree_mask(branch_BT),
            use_cache=False,
        ).last_hidden_state
        hidden_ND = hidden_BTD.flatten(0, 1)[torch.from_numpy(microbatch.source_N).to(device)]
        logprobs_N, _ = chosen_logprobs(
            hidden_ND,
            self.language_model.get_output_embeddings().weight,
            torch.from_numpy(microbatch.target_N).to(device),
            temperature=self.temperature,
            chunk=self.logit_chunk_rows,
        )
        return logprobs_N


def tree_mask(branch_BT: torch.Tensor) -> torch.Tensor:
    """bool [B,1,T,T]: a token sees earlier tokens of the prompt and of its own branch; padding sees only itself."""
    num_tokens = branch_BT.shape[1]
    earlier_TT = torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=branch_BT.device).tril()
    key_B1T, query_BT1 = branch_BT[:, None, :], branch_BT[:, :, None]
    seen_BTT = earlier_TT & ((key_B1T == TRUNK) | (key_B1T == query_BT1)) & (query_BT1 != PADDING)
    itself_TT = torch.eye(num_tokens, dtype=torch.bool, device=branch_BT.device)
    return (seen_BTT | itself_TT)[:, None]
