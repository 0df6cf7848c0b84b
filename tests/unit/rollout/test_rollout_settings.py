"""Rollout settings, as a job file would give them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from rlhf_cluster.rollout.engines.vllm import VllmEngine
from rlhf_cluster.rollout.settings import RolloutSettings


@pytest.mark.parametrize("name", ["vllm", "transformers", "scripted"])
def test_an_engine_is_chosen_by_its_type(name):
    settings = RolloutSettings.model_validate({"engine": {"type": name}, "threads": 2})
    assert settings.engine.type == name
    assert settings.environment["OMP_NUM_THREADS"] == "2"


def test_vllm_is_the_default_and_stays_in_the_process():
    assert RolloutSettings().environment["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 0},
        {"top_p": 0},
        {"top_k": -1},
        {"max_new_tokens": 0},
        {"engine": {"type": "vlm"}},
        {"engine": {"type": "scripted", "dtype": "auto"}},
        {"max_tokens": 8},
    ],
)
def test_wrong_values_and_unknown_names_are_refused(wrong):
    with pytest.raises(ValidationError):
        RolloutSettings.model_validate(wrong)


def test_sampling_is_what_the_settings_say():
    sampling = RolloutSettings(max_new_tokens=7, temperature=0.6, top_p=0.9, top_k=5).sampling
    assert (sampling.max_new_tokens, sampling.temperature, sampling.top_p, sampling.top_k) == (7, 0.6, 0.9, 5)


def test_settings_load_nothing_heavy():
    heavy = {"torch", "vllm", "transformers", "ray"}
    code = f"import sys, rlhf_cluster.rollout.settings; print(sorted(sys.modules.keys() & {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


def test_an_engine_without_a_type_is_vllm():
    settings = RolloutSettings.model_validate({"engine": {"kv_cache_gib": 3}})
    assert settings.engine == VllmEngine(kv_cache_gib=3)


def test_only_workers_with_a_gpu_may_compile():
    assert RolloutSettings().environment["TORCH_COMPILE_DISABLE"] == "1"
    assert "TORCH_COMPILE_DISABLE" not in RolloutSettings(gpus=1).environment
