"""What all tests share: no network, no model cache of the user's, one thread a process, no hypothesis deadline."""

from __future__ import annotations

import os

# Before anything imports torch, ray or transformers.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import signal
from pathlib import Path

import hypothesis
import pytest

# A shell that runs tests in the background has them ignore Ctrl-C, and what they start inherits that: no test that
# presses it would ever be heard.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("tests", deadline=None, max_examples=60)
hypothesis.settings.load_profile("tests")


@pytest.fixture(scope="session")
def word_world_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache directory (`RLHF_CLUSTER_HOME`) that holds the generated word-world model, made once a session."""
    from rlhf_cluster.models import registry

    home = tmp_path_factory.mktemp("rlhf-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLHF_CLUSTER_HOME", str(home))
        registry.add("word-world", progress=lambda line: None)
    return home
