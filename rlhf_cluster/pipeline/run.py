"""Runs the stages of a pipeline in order, those that are unchanged left as they are.

    decide -> note the making -> job directory -> its job runs -> outputs -> lineage -> note that it succeeded

Each arrow may be where a kill falls: the next run finds the same making, and goes on with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rlhf_cluster.config.load import JOB_FILE, check
from rlhf_cluster.driver.checkpoint_manifest import MANIFEST, verify
from rlhf_cluster.driver.claim import Claim, current_driver
from rlhf_cluster.driver.clock import Clock, SystemClock
from rlhf_cluster.driver.whole_file import write_whole
from rlhf_cluster.errors import ConfigError, Interrupted, StageFailed
from rlhf_cluster.pipeline.content import content_digest
from rlhf_cluster.pipeline.graph import Reference, Stage
from rlhf_cluster.pipeline.lineage import write_lineage
from rlhf_cluster.pipeline.load import Pipeline
from rlhf_cluster.pipeline.outputs import outputs_of
from rlhf_cluster.pipeline.plan import Decision
from rlhf_cluster.pipeline.state import Making, Output, State, read_state, write_state
from rlhf_cluster.pipeline.survey import ingredients_of, look_at, place_of, survey

StageRunner = Callable[[Path], int]
"""Runs, or goes on with, the job of a job directory that holds its `job.json`; returns the exit code of `rlhf`."""
DONE, INTERRUPTED = 0, 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Told before each stage."""

    number: int
    """1 for the first stage."""
    num_stages: int
    decision: Decision
    job_dir: Path


def run_pipeline(
    pipeline: Pipeline,
    *,
    runner: StageRunner,
    tell: Callable[[Progress], None] = lambda _: None,
    clock: Clock | None = None,
    ignore_code: bool = False,
    take_over: bool = False,
    at: Callable[[str], None] = lambda _: None,
) -> dict[str, Making]:
    """Run what has to be run; returns the making of every stage that is now in use.

    Raises `StageFailed` when a job fails and `Interrupted` when one was stopped; run again, the stage goes on.
    `take_over` runs a pipeline whose runner cannot be known to be dead. `at` is called between any two writes.
    """
    pipeline.directory.mkdir(parents=True, exist_ok=True)
    claim = _take_claim(pipeline.directory, take_over=take_over)
    try:
        state = read_state(pipeline.directory, pipeline=pipeline.name, seed=pipeline.seed)
        survey(pipeline, state, ignore_code=ignore_code)  # what cannot begin is said before anything does
        work = _Run(pipeline=pipeline, runner=runner, clock=clock or SystemClock(), claim=claim, at=at, state=state)
        for number, stage in enumerate(pipeline.stages, start=1):
            decision = look_at(stage, work.made, work.state, pipeline.directory, ignore_code=ignore_code)
            making = decision.making or work.new_making(stage)
            job_dir = pipeline.directory / making.job_dir
            tell(Progress(number=number, num_stages=len(pipeline.stages), decision=decision, job_dir=job_dir))
            work.made[stage.name] = making if decision.act == "keep" else work.make(stage, making)
            work.check_outputs(stage)
        return dict(work.made)
    finally:
        claim.release()


def _take_claim(directory: Path, *, take_over: bool) -> Claim:
    newest = current_driver(directory)
    if newest and newest.is_alive and not take_over:
        raise ConfigError(
            f"{directory} is being run by process {newest.process_id} on {newest.host}: wait for it, or interrupt it "
            "there, or take it over with --take-over"
        )
    return Claim.take(directory, take_over=take_over)


@dataclass(kw_only=True)
class _Run:
    """One run under way."""

    pipeline: Pipeline
    runner: StageRunner
    clock: Clock
    claim: Claim
    at: Callable[[str], None]
    state: State
    made: dict[str, Making] = field(default_factory=dict)

    def new_making(self, stage: Stage) -> Making:
        ingredients = ingredients_of(stage, self.made, self.pipeline.directory)
        return Making(
            stage=stage.name,
            number=max((making.number for making in self.state.of(stage.name)), default=0) + 1,
            digest=ingredients.digest,
            ingredients=ingredients,
            status="running",
            started_s=self.clock.time(),
        )

    def make(self, stage: Stage, making: Making) -> Making:
        """The making once it has succeeded."""
        making = making.model_copy(update={"status": "running", "message": "", "ended_s": 0.0})
        self._note(making)
        job_dir = self._job_dir(stage, making)
        self.at("run")
        code = self.runner(job_dir)
        if code == INTERRUPTED:
            raise Interrupted(f"stopped in stage {stage.name}: {job_dir}; run the pipeline again, and it goes on there")
        if code != DONE:
            message = f"exit code {code}" if code > 0 else f"ended by signal {-code}"
            self._note(making.model_copy(update={"status": "failed", "message": message, "ended_s": self.clock.time()}))
            raise StageFailed(
                f"stage {stage.name} failed ({message}): {job_dir}. Run the pipeline again, and the stage goes on from "
                "its last checkpoint; with other settings it is made anew"
            )
        self.at("outputs")
        return self._finish(making, job_dir)

    def check_outputs(self, stage: Stage) -> None:
        """Raise `ConfigError` when something that a later stage needs was not left, before any other stage runs."""
        for later in self.pipeline.stages:
            for reference in later.references:
                if reference.stage == stage.name:
                    self._place(later, reference)

    def _finish(self, making: Making, job_dir: Path) -> Making:
        outputs = {
            name: Output(path=path, digest=content_digest(job_dir / path)) for name, path in outputs_of(job_dir).items()
        }
        done = making.model_copy(update={"status": "succeeded", "outputs": outputs, "ended_s": self.clock.time()})
        self.at("lineage")
        write_lineage(done, pipeline=self.pipeline, made=self.made)
        self._note(done)
        return done

    def _note(self, making: Making) -> None:
        self.at("note")
        self.claim.check()
        self.state = self.state.with_making(making)
        write_state(self.pipeline.directory, self.state)

    def _job_dir(self, stage: Stage, making: Making) -> Path:
        """With its job file, whose references have become paths."""
        job_dir = self.pipeline.directory / making.job_dir
        if not (job_dir / JOB_FILE).is_file():
            tree = stage.resolved(lambda reference: str(self._verified(stage, reference)))
            job = check(tree, source=f"stages.{stage.name}")
            self.at("job directory")
            job_dir.mkdir(exist_ok=True)
            write_whole(job_dir / JOB_FILE, job.model_dump_json(indent=2) + "\n")
        return job_dir

    def _verified(self, stage: Stage, reference: Reference) -> Path:
        """Raises `CheckpointCorrupt` for a model that is no longer what was written."""
        place = self._place(stage, reference)
        if (place / MANIFEST).is_file():
            verify(place)
        return place

    def _place(self, stage: Stage, reference: Reference) -> Path:
        return place_of(stage, reference, self.made[reference.stage], self.pipeline.directory)
