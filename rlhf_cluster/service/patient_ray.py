"""Ray as the reconciler asks it: not again at once after it gave no answer, and stopping what is to be stopped until
Ray has heard it."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping

from rlhf_cluster.service.ray_jobs import RayAway, RayJobs

NO_CLUSTER = "there is no Ray cluster: start the service with --ray-address, or with `rlhf up`"
FIRST_PAUSE_S, MAX_PAUSE_S = 1.0, 30.0
STOP_EVERY_S = 10.0

log = logging.getLogger(__name__)


class PatientRay:
    def __init__(self, ray: RayJobs | None, *, clock: Callable[[], float] = time.time) -> None:
        self._ray = ray
        self._clock = clock
        self._again_s = 0.0
        self._pause_s = 0.0
        self._owed: dict[str, None] = {}
        """Submissions to stop, in order."""
        self._stopped_s: dict[str, float] = {}
        self.trouble = "" if ray else NO_CLUSTER
        """Why Ray cannot be asked, in words; empty where it can."""

    def may_be_asked(self) -> bool:
        return self._ray is not None and self._clock() >= self._again_s

    def status(self, submission_id: str) -> str | None:
        """As `RayJobs.status`."""
        if self._ray is None or not self.may_be_asked():
            return None
        status = self._ray.status(submission_id)
        self._note()
        return status

    def submit(
        self,
        submission_id: str,
        entrypoint: str,
        *,
        env: Mapping[str, str],
        metadata: Mapping[str, str],
        num_cpus: float,
    ) -> None:
        """As `RayJobs.submit`."""
        if self._ray is None or not self.may_be_asked():
            raise RayAway(self.trouble)
        try:
            self._ray.submit(submission_id, entrypoint, env=env, metadata=metadata, num_cpus=num_cpus)
        finally:
            self._note()

    def last_line(self, submission_id: str) -> str:
        if self._ray is None or not self.may_be_asked():
            return ""
        lines = self._ray.last_lines(submission_id, num_lines=1)
        return lines[-1].strip()[:500] if lines else ""

    def owe_stop(self, submission_id: str) -> bool:
        """Have Ray stop it at the next opportunity; False where that was asked for a moment ago."""
        now_s = self._clock()
        if now_s - self._stopped_s.get(submission_id, float("-inf")) < STOP_EVERY_S:
            return False
        self._stopped_s[submission_id] = now_s
        self._owed[submission_id] = None
        self.stop_what_is_owed()
        return True

    def stop_what_is_owed(self) -> None:
        for submission_id in list(self._owed):
            if self._ray is None or not self.may_be_asked():
                return
            # One that Ray cannot stop, because its node is gone, must not keep the others going.
            with contextlib.suppress(RayAway):
                self._ray.stop(submission_id)
                del self._owed[submission_id]
            self._note()

    def _note(self) -> None:
        assert self._ray is not None
        told, self.trouble = self.trouble, self._ray.trouble
        if not self.trouble:
            self._pause_s = 0.0
            if told:
                log.info("Ray answers again")
            return
        self._pause_s = min(max(2 * self._pause_s, FIRST_PAUSE_S), MAX_PAUSE_S)
        self._again_s = self._clock() + self._pause_s
        if not told:
            log.warning("%s; jobs that run go on, and this is tried again", self.trouble)
