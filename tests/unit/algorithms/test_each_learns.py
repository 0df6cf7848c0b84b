"""Every policy gradient learns: a micro policy comes to emit the token that is paid, in seconds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rlhf_cluster.algorithms import ALGORITHMS, GRPO, GSPO, PPO, ReinforcePP
from rlhf_cluster.algorithms.policy_gradient import PolicyGradient
from rlhf_cluster.data.packing import build_microbatch, by_group, rows_of
from rlhf_cluster.functional.logprobs import chosen_logprobs
from rlhf_cluster.learner.columns import BatchColumns
from rlhf_cluster.learner.minibatches import minibatches
from rlhf_cluster.learner.predictions import weighted
from rlhf_cluster.models.outputs import Outputs
from rlhf_cluster.records import Batch
from rlhf_cluster.testing import make_group

VOCABULARY, WIDTH, PROMPT, LENGTH, PAID = 16, 32, 3, 6, 7
NUM_PROMPTS = NUM_COMPLETIONS = 8
NUM_STEPS = 20

LEARNERS = {
    **{name: kind() for name, kind in ALGORITHMS.items() if issubclass(kind, PolicyGradient)},
    "grpo masked, with entropy and KL": GRPO(importance="masked", entropy_coef=0.001, kl_coef=0.001),
    "reinforce_pp with siblings": ReinforcePP(baseline="group"),
}
WIDER = {"gspo": GSPO(clip_low=0.2, clip_high=0.2), "ppo": PPO(value_coef=0.5, kl_coef=0.01)}
"""A step of this policy is far greater than one of a language model."""


class MicroPolicy(torch.nn.Module):
    """The next token from the last one and its position, with a value beside it."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.tokens = torch.nn.Embedding(VOCABULARY, WIDTH)
        self.positions = torch.nn.Embedding(PROMPT + LENGTH, WIDTH)
        self.mixed = torch.nn.Linear(WIDTH, WIDTH)
        self.head = torch.nn.Parameter(torch.randn(VOCABULARY, WIDTH) * 0.1)
        self.critic = torch.nn.Linear(WIDTH, 1)

    def hidden(self, tokens, positions):
        return torch.tanh(self.mixed(torch.tanh(self.tokens(tokens) + self.positions(positions))))

    def forward(self, microbatch, *, want_entropy=False):
        token_ids, positions, sources, targets = map(
            torch.from_numpy,
            (microbatch.token_ids_BT, microbatch.position_ids_BT, microbatch.source_N, microbatch.target_N),
        )
        hidden_ND = self.hidden(token_ids, positions).flatten(0, 1)[sources]
        logprobs_N, entropy_N = chosen_logprobs(hidden_ND, self.head, targets, want_entropy=want_entropy)
        return Outputs(logprobs_N=logprobs_N, entropy_N=entropy_N, values_N=self.critic(hidden_ND).squeeze(-1))

    @torch.no_grad()
    def sampled(self, seed):
        """Groups of completions, paid for the share of their tokens that is `PAID`."""
        draw = torch.Generator().manual_seed(seed)
        groups = [
            make_group([LENGTH] * NUM_COMPLETIONS, num_prompt_tokens=PROMPT, request_id=number, vocab_size=VOCABULARY)
            for number in range(NUM_PROMPTS)
        ]
        last_S = torch.tensor([int(group.prompt.token_ids[-1]) for group in groups]).repeat_interleave(NUM_COMPLETIONS)
        tokens = []
        for position in range(PROMPT - 1, PROMPT + LENGTH - 1):
            logits = self.hidden(last_S, torch.full_like(last_S, position)) @ self.head.T
            last_S = torch.multinomial(logits.softmax(-1), 1, generator=draw).squeeze(1)
            tokens.append(last_S)
        tokens_GST = torch.stack(tokens, dim=1).numpy().astype(np.int32).reshape(NUM_PROMPTS, NUM_COMPLETIONS, LENGTH)
        drawn = [
            replace(group, token_ids=of_group.ravel(), rewards=(of_group == PAID).mean(1).astype(np.float32))
            for group, of_group in zip(groups, tokens_GST, strict=True)
        ]
        outputs = self(laid_out(drawn))
        return [
            replace(group, logprobs=logprobs, values=values, reference_logprobs=None)
            for group, logprobs, values in zip(
                drawn,
                by_group(drawn, outputs.logprobs_N.numpy()),
                by_group(drawn, outputs.values_N.numpy()),
                strict=True,
            )
        ]


@torch.no_grad()
def referenced(groups, reference):
    logprobs = by_group(groups, reference(laid_out(groups)).logprobs_N.numpy())
    return [replace(group, reference_logprobs=each) for group, each in zip(groups, logprobs, strict=True)]


def laid_out(groups):
    return build_microbatch(groups, rows_of(groups, share_prompt=True, max_row_tokens=1000))


def update(algorithm, policy, optimizer, groups, *, step):
    batch = Batch(step=step, groups=algorithm.credit(groups))
    old = [group.logprobs for group in batch.groups]
    for minibatch, old_logprobs in minibatches(algorithm, batch, old_logprobs=old, seed=0):
        columns = BatchColumns.of(algorithm, minibatch, device=torch.device("cpu"), old_logprobs=old_logprobs)
        microbatch = laid_out(minibatch)
        outputs = policy(microbatch, want_entropy=algorithm.wants_entropy)
        parts = algorithm.loss(columns.tensors_of(microbatch, outputs))
        optimizer.zero_grad()
        (weighted(parts, columns, microbatch) / algorithm.normaliser(minibatch)).backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()


@pytest.mark.parametrize("name", LEARNERS)
def test_it_learns_to_emit_the_token_that_is_paid(name):
    algorithm = WIDER.get(name, LEARNERS[name]).model_copy(update={"num_epochs": 2, "num_minibatches": 2})
    policy, reference = MicroPolicy(seed=0), MicroPolicy(seed=0)
    optimizer = torch.optim.Adam(policy.parameters(), lr=2e-2)
    paid = []
    for step in range(NUM_STEPS):
        groups = policy.sampled(seed=step)
        paid.append(float(np.mean([group.rewards for group in groups])))
        if "reference" in algorithm.needs:
            groups = referenced(groups, reference)
        kept = [group for group in groups if algorithm.drop_reason(group) is None]
        if kept:
            update(algorithm, policy, optimizer, kept, step=step)
    assert paid[0] < 0.15
    assert np.mean(paid[-3:]) > 0.95
