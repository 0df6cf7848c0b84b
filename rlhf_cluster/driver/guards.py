"""The guards at work: after every step and evaluation they are asked what they see, it is told, and a stop is kept.

`flow/guards.py` and `flow/judge.py` decide; this acts, and it is the only place that does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from rlhf_cluster.config import JobConfig
from rlhf_cluster.driver.clock import Clock
from rlhf_cluster.driver.guard_memory import GuardMemory, read_memory
from rlhf_cluster.flow.guards import Finding, drifts, kl_runaway
from rlhf_cluster.flow.judge import hacking
from rlhf_cluster.records.events import Evaluated, Event, GuardTripped, Notice, StepDone


class Guards:
    def __init__(
        self, job: JobConfig, job_dir: Path, *, step: int, emit: Callable[[Event], None], clock: Clock
    ) -> None:
        """`step` is where the job goes on."""
        self.stopped_by: Finding | None = None
        """Why the job is to end after this step."""
        self._settings = job.guards
        self._job_dir = job_dir
        self._emit = emit
        self._clock = clock
        self._standing: dict[type[Event], tuple[Finding, ...]] = {}
        """By what was looked at, what was found the last time: it has been told."""
        self._memory = self._remembered(step)

    @property
    def sentence(self) -> str:
        """What is wrong now, in words; empty where nothing is."""
        return "; ".join(f"{each.guard}: {each.sentence}" for found in self._standing.values() for each in found)

    def see_step(self, done: StepDone) -> None:
        settings, memory = self._settings, self._memory
        memory.add_step(done, settings)
        self._keep(done.step)
        runaway = kl_runaway(settings, memory.kl)
        self._act([*([runaway] if runaway else []), *drifts(settings, first=memory.first, last=memory.last)], done)

    def see_evaluation(self, evaluated: Evaluated) -> None:
        if self._settings.judge is None:
            return
        self._memory.add_evaluation(evaluated, self._settings.judge)
        self._keep(evaluated.step)
        found = hacking(self._settings, self._memory.judgements)
        self._act([found] if found else [], evaluated)

    def _act(self, findings: Iterable[Finding], seen: Event) -> None:
        findings = tuple(findings)
        told = {finding.guard for finding in self._standing.get(type(seen), ())}
        for finding in findings:
            if finding.guard not in told:
                self._tell(finding, step=seen.step)
            if finding.deed == "stop" and self.stopped_by is None:
                self.stopped_by = finding
        self._standing[type(seen)] = findings

    def _tell(self, finding: Finding, *, step: int) -> None:
        self._emit(
            GuardTripped(
                time_s=self._clock.time(),
                step=step,
                level="error" if finding.deed == "stop" else "warning",
                text=f"guard {finding.guard}: {finding.sentence}",
                guard=finding.guard,
                deed=finding.deed,
            )
        )

    def _remembered(self, step: int) -> GuardMemory:
        try:
            return read_memory(self._job_dir, step=step)
        except ValueError as error:
            self._warn(f"{error}. The guards compare with what they see from now on", step=step)
            return GuardMemory()

    def _keep(self, step: int) -> None:
        try:
            self._memory.write(self._job_dir)
        except OSError as error:
            self._warn(
                f"what the guards compare could not be written, and a resumed job will not know: {error}", step=step
            )

    def _warn(self, text: str, *, step: int) -> None:
        self._emit(Notice(time_s=self._clock.time(), step=step, level="warning", text=text))
