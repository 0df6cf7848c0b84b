"""Reward functions as users write them, the bad ones first; the tests name them by import path."""

from __future__ import annotations

import asyncio
import ctypes
import math
import os
import signal
import sys
import time

from rlhf_cluster.rewards.sample import RewardSample, RewardUnavailable


class SurprisingError(BaseException):
    def __str__(self) -> str:
        raise RuntimeError("not even a message")


def by_completion(sample: RewardSample) -> object:
    """Does what the completion says, so that one group can hold several ways to fail."""
    match sample.completion:
        case "raise":
            raise ValueError("no such thing")
        case "raise strangely":
            raise SurprisingError
        case "exit":
            sys.exit(3)
        case "away":
            raise RewardUnavailable("the judge is away")
        case "hang":
            time.sleep(60)
        case "hang and hold the GIL":
            ctypes.PyDLL(None).sleep(60)
        case "hang and ignore signals":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                time.sleep(60)
        case "die":
            os._exit(1)
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "die quietly":
            os._exit(0)
        case "hoard":
            return float(len(bytearray(8 << 30)))
        case "nan":
            return math.nan
        case "infinite":
            return math.inf
        case "string":
            return "1.0"
        case "none":
            return None
        case "list":
            return [1.0]
        case "true":
            return True
    return float(sample.completion)


async def slow_judge(sample: RewardSample, *, wait_s: float) -> float:
    await asyncio.sleep(wait_s)
    return float(sample.completion)


class Scaled:
    def __init__(self, *, factor: float) -> None:
        self.factor = factor

    def score(self, sample: RewardSample) -> float:
        return self.factor * float(sample.completion)


class WithoutScore:
    pass


not_callable = 3
