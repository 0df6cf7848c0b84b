"""A judge and a critic in front of vLLM's own OpenAI-compatible server.

The model is tiny and its weights are random, so this shows that the parts fit and that the numbers are right: the judge
behind the endpoint gives the verdicts of the same model read from its logits here. Whether a model judges well is
another question, which no model of this size answers.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rlhf_cluster.data.constitution import load_constitution
from rlhf_cluster.rewards.critics.base import Case, Critique
from rlhf_cluster.rewards.critics.settings import EndpointCriticSettings
from rlhf_cluster.rewards.critics.table import make_critic
from rlhf_cluster.rewards.judges.base import Comparison, Judgement, Verdict
from rlhf_cluster.rewards.judges.settings import EndpointJudgeSettings, JudgeSettings, LocalJudgeSettings
from rlhf_cluster.rewards.judges.table import make_judge
from rlhf_cluster.rewards.sample import Failure, RewardSample
from rlhf_cluster.testing import save_tiny_model

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

pytest.importorskip("vllm", reason="vLLM is not installed")

WORDS = ("<unk>", "<eos>", "A", "B", "good", "bad", "worse", "Verdict:", "fine", "violated", "Option", "Request:")
CHAT = "{% for message in messages %}{{ message['content'] }}{% endfor %} Reply:"
NUM_WORDS = 64
START_S = 480.0
ANY_MASS: dict[str, Any] = {"min_letter_mass": 0.0, "constitution": "word-world"}
ENVIRONMENT = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}
PAIRS = (("good", "bad"), ("bad bad", "worse"), ("good good bad", "good"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("judge")
    words = (*WORDS, *(f"word{number}" for number in range(NUM_WORDS - len(WORDS))))
    ids = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    ids.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=ids, unk_token="<unk>", eos_token="<eos>")
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(path)
    return save_tiny_model(path)


@pytest.fixture(scope="module")
def url(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", "tiny", "--dtype", "float32"]
    program = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), *options]
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*program, "--max-model-len", "256", "--max-logprobs", str(NUM_WORDS), "--enforce-eager"],
            env={**os.environ, **ENVIRONMENT},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_until_it_answers(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait(30)


def wait_until_it_answers(health: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + START_S
    while True:
        try:
            if httpx.get(health, timeout=5.0, trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        if server.poll() is not None or time.monotonic() > deadline_s:
            raise RuntimeError(log.read_text(errors="replace")[-4000:])
        time.sleep(0.5)


def compare(settings: JudgeSettings) -> list[Judgement]:
    def sample(text: str) -> RewardSample:
        return RewardSample(prompt="good ?", completion=text, finish_reason="stop", num_tokens=1)

    async def run() -> list[Judgement]:
        judge = make_judge(settings)
        try:
            await judge.start()
            return await judge.compare([Comparison(prompt="good ?", a=sample(a), b=sample(b)) for a, b in PAIRS])
        finally:
            await judge.close()

    return asyncio.run(run())


def test_the_served_model_judges_as_its_own_logits_say(url, model):
    served = compare(EndpointJudgeSettings(url=url, model="tiny", num_logprobs=NUM_WORDS, **ANY_MASS))
    here = compare(LocalJudgeSettings(model=str(model), **ANY_MASS))
    for there, verdict in zip(served, here, strict=True):
        assert isinstance(there, Verdict), there
        assert isinstance(verdict, Verdict)
        assert there.p_a == pytest.approx(verdict.p_a, abs=1e-4)
        assert there.position_bias == pytest.approx(verdict.position_bias, abs=1e-4)


def test_a_model_without_a_chat_template_is_asked_through_completions(url):
    served = compare(
        EndpointJudgeSettings(url=url, model="tiny", api="completions", num_logprobs=NUM_WORDS, **ANY_MASS)
    )
    assert all(isinstance(verdict, Verdict) and 0 < verdict.p_a < 1 for verdict in served), served


def test_the_served_model_is_asked_for_critiques_and_revisions(url):
    principle = load_constitution("word-world").principles[0]
    case = Case(prompt="good ?", answer="bad", principle=principle)

    async def run() -> tuple[Critique | Failure, str | Failure]:
        critic = make_critic(EndpointCriticSettings(url=url, model="tiny", max_new_tokens=16, temperature=1.0))
        try:
            [critique] = await critic.critique([case])
            [revision] = await critic.revise([case], [Critique(text="bad", violated=True)])
            return critique, revision
        finally:
            await critic.close()

    critique, revision = asyncio.run(run())
    assert isinstance(revision, str), revision
    if isinstance(critique, Failure):
        assert "without a verdict" in critique.message, "random words seldom end with one"
