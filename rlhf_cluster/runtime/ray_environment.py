"""Environment variables that Ray reads when it is imported, so they are set before that."""

from __future__ import annotations

import os
import secrets
import sys

ALWAYS = {
    # Ray starts workers at nice 15, where a learner starves beside anything else on the machine.
    "RAY_worker_niceness": "0",
    # A role that reserves no GPU sees none and runs on the CPU: today's default, said because Ray means to change it.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    # The driver tells of a lost role itself, with the end of its log; Ray's page about it would land on the console.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed while executing a task",
}

PRIVATE = {
    # A neighbour's memory must not make Ray kill our actors; the kernel's own limit still holds.
    "RAY_memory_monitor_refresh_ms": "0",
    # A node that hangs is seen after about 6 s; Ray's own values take a minute.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    # The CPUs of a private cluster are bookkeeping: without this Ray starts a process for each of them.
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_worker_prestart": "0",
}


def prepare(*, private: bool) -> None:
    """For a private cluster also a token of its own, so that no other user of the machine can reach it.

    What the user has set is left alone: a running cluster may need it.
    """
    if "ray" in sys.modules:
        # It has read them, or another job of this process set them: a new token now would lock its processes out.
        return
    for name, value in ALWAYS.items():
        os.environ.setdefault(name, value)
    if private:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        for name, value in PRIVATE.items():
            os.environ.setdefault(name, value)
