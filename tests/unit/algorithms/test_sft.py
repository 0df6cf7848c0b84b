"""SFT: the mean negative log-likelihood of the completion tokens."""

from __future__ import annotations

import numpy as np
import torch

from rlhf_cluster.algorithms import SFT, TokenColumns
from rlhf_cluster.records import Prompt, RolloutGroup


def _group(lengths):
    num_tokens = sum(lengths)
    return RolloutGroup(
        request_id=0,
        prompt=Prompt(prompt_id="0/0", text="", token_ids=np.array([1], dtype=np.int32)),
        worker_id="",
        lengths=np.array(lengths, dtype=np.int32),
        token_ids=np.zeros(num_tokens, dtype=np.int32),
        logprobs=np.zeros(num_tokens, dtype=np.float32),
        versions=np.zeros(num_tokens, dtype=np.int32),
        finish_reasons=("stop",) * len(lengths),
    )


def test_credit_weights_and_loss_make_the_mean_negative_log_likelihood():
    algorithm = SFT()
    groups = algorithm.credit([_group([1, 2]), _group([1])])
    logprobs_N = torch.tensor([-1.0, -2.0, -3.0, -6.0], requires_grad=True)
    columns = TokenColumns(
        logprobs_N=logprobs_N,
        behaviour_logprobs_N=torch.zeros(4),
        old_logprobs_N=None,
        reference_logprobs_N=None,
        advantages_N=torch.tensor(np.concatenate([group.advantages for group in groups])),
        sequence_N=torch.tensor([0, 1, 1, 2]),
        num_sequences=3,
    )
    weights_N = torch.tensor(np.concatenate(algorithm.token_weights(groups)))
    total = (weights_N * algorithm.loss(columns).loss_N).sum() / algorithm.normaliser(groups)
    total.backward()
    assert total.item() == 3.0
    assert logprobs_N.grad.tolist() == [-0.25] * 4


def test_it_needs_nothing_and_drops_only_what_has_no_token():
    assert SFT().needs == frozenset()
    assert SFT().drop_reason(_group([1])) is None
    assert SFT().drop_reason(_group([0])) == "no_tokens"
