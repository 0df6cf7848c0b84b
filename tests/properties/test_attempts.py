"""Whatever becomes of its attempts, a job comes to one end, and never has two drivers that count."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.flow.attempts import (
    GONE,
    MAX_EXCUSED,
    OVER,
    AskToStop,
    Attempt,
    Begin,
    Bounds,
    End,
    Excuse,
    GiveUp,
    JobFacts,
    StopByForce,
    next_action,
)

BOUNDS = Bounds(lease_s=10.0, launch_s=60.0, cancel_s=30.0)
HELD = ("fails", "dies", "never registers", "is refused by Ray")
EXCUSED = ("is interrupted", "loses its cluster", "loses its cluster and says so", "has its cluster replaced")
FATES = st.lists(st.sampled_from(["succeeds", "is at fault", *HELD, *EXCUSED]), max_size=6)


class World:
    """Obeys actions; its drivers live as `fates` say."""

    def __init__(self, fates, *, max_attempts, cancel_at_s, wanted):
        self.fates, self.max_attempts = [*fates], max_attempts
        self.cancel_at_s, self.later = cancel_at_s, wanted
        self.now_s, self.attempts, self.alive, self.end = 0.0, [], set(), None

    def run(self):
        for _ in range(2000):
            self.now_s += 1.0
            self._live()
            while self.end is None and (action := next_action(self._facts(), now_s=self.now_s, bounds=BOUNDS)):
                self._obey(action)
                if isinstance(action, AskToStop | StopByForce):
                    break
            assert len(self.alive) <= 1, "two drivers that count"
            if self.end is not None:
                return self.end
        raise AssertionError("the job never ends")

    def _facts(self):
        cancelled = self.cancel_at_s is not None and self.now_s >= self.cancel_at_s
        return JobFacts(
            wanted=self.later if cancelled else "run",
            wanted_since_s=self.cancel_at_s if cancelled else 0.0,
            max_attempts=self.max_attempts,
            attempts=tuple(self.attempts),
        )

    def _fate(self, number):
        return self.fates[number - 1] if number <= len(self.fates) else "succeeds"

    def _change(self, number, **fields):
        self.attempts[number - 1] = replace(self.attempts[number - 1], **fields)

    def _live(self):
        for attempt in self.attempts:
            age_s, fate = self.now_s - attempt.created_s, self._fate(attempt.number)
            if attempt.number not in self.alive:
                continue
            if fate == "is refused by Ray":
                self._change(attempt.number, ray_status="FAILED")
            elif fate != "never registers" and age_s >= 5.0:
                self._change(attempt.number, state="running", lease_until_s=self.now_s + BOUNDS.lease_s)
                if age_s >= 20.0:
                    self._finish(attempt.number, fate)

    def _finish(self, number, fate):
        self.alive.discard(number)
        statuses = {"loses its cluster": None, "has its cluster replaced": "ABSENT", "dies": "FAILED"}
        if fate in statuses:
            self._change(number, ray_status=statuses[fate])
        else:
            outcome = {"succeeds": "succeeded", "is interrupted": "interrupted"}.get(fate, "failed")
            status = None if fate == "loses its cluster and says so" else "FAILED"
            is_final = fate == "is at fault"
            self._change(
                number, state="ended", outcome=outcome, ray_status=status, may_be_retried=not is_final, message=fate
            )

    def _obey(self, action):
        match action:
            case Begin(number):
                assert number == len(self.attempts) + 1
                assert sum(self._fate(attempt.number) in HELD for attempt in self.attempts) < self.max_attempts
                self.attempts.append(
                    Attempt(number=number, state="submitted", created_s=self.now_s, ray_status="RUNNING")
                )
                self.alive.add(number)
            case GiveUp(number, why):
                self.alive.discard(number)
                self._change(number, state="lost", message=why)
            case Excuse(number, _):
                assert self._fate(number) in EXCUSED
                self._change(number, was_taken_away=True)
            case AskToStop(number):
                if self.attempts[number - 1].state == "running":
                    self.alive.discard(number)
                    self._change(number, state="ended", outcome="interrupted", message="stopped")
            case StopByForce(number):
                self.alive.discard(number)
                self._change(number, state="ended", outcome="failed", message="stopped by force")
            case End(state, _):
                assert self.end is None
                self.end = state


@given(FATES, st.integers(1, 4), st.none() | st.floats(0.0, 300.0), st.sampled_from(["cancel", "kill"]))
def test_every_job_ends_once_with_one_driver_at_a_time(fates, max_attempts, cancel_at_s, wanted):
    world = World(fates, max_attempts=max_attempts, cancel_at_s=cancel_at_s, wanted=wanted)
    end = world.run()
    assert end in OVER
    assert not world.alive
    if cancel_at_s is None:
        assert end == _fair_end(fates, max_attempts)


def _fair_end(fates, max_attempts):
    """Only what the job has to answer for uses up its attempts."""
    own = [fate for fate in fates if fate not in EXCUSED] + ["succeeds"]
    own = own[: own.index("succeeds") + 1]
    final = next((fate for fate in own[:max_attempts] if fate not in HELD), "fails")
    return "succeeded" if final == "succeeds" else "failed"


@given(st.sampled_from(EXCUSED), st.integers(1, 3))
def test_what_is_taken_away_again_and_again_ends_too(fate, max_attempts):
    world = World([fate] * 1000, max_attempts=max_attempts, cancel_at_s=None, wanted="cancel")
    assert world.run() == "failed"
    assert len(world.attempts) == MAX_EXCUSED


def test_ray_alone_never_ends_a_job_whose_driver_renews_its_lease():
    for status in GONE:
        attempt = Attempt(number=1, state="running", created_s=0.0, lease_until_s=50.0, ray_status=status)
        facts = JobFacts(wanted="run", wanted_since_s=0.0, max_attempts=3, attempts=(attempt,))
        assert next_action(facts, now_s=49.0, bounds=BOUNDS) is None
        assert isinstance(next_action(facts, now_s=51.0, bounds=BOUNDS), GiveUp)


def test_an_attempt_whose_submission_may_have_been_cut_off_is_submitted_again():
    attempt = Attempt(number=1, state="created", created_s=0.0)
    facts = JobFacts(wanted="run", wanted_since_s=0.0, max_attempts=3, attempts=(attempt,))
    assert next_action(facts, now_s=1.0, bounds=BOUNDS) == Begin(1)
