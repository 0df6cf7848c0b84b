from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import rich.console
from hypothesis import example, given
from hypothesis import strategies as st

from rlhf_cluster.driver.observers.console import Console, LivePanel, PlainLines
from rlhf_cluster.driver.observers.excerpt import excerpt, printable
from rlhf_cluster.driver.observers.figures import duration
from rlhf_cluster.driver.observers.panel import BARS, panel, sparkline
from rlhf_cluster.driver.observers.progress import Progress
from rlhf_cluster.records.events import Evaluated, Generated, JobStarted, Notice, StepDone


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def progress_after(events) -> Progress:
    progress = Progress()
    for event in events:
        progress.see(event)
    return progress


def rendered(progress: Progress, *, now_s: float, width: int = 110) -> str:
    console = rich.console.Console(file=io.StringIO(), width=width)
    console.print(panel(progress, now_s=now_s))
    return console.file.getvalue()


def test_away_from_a_terminal_each_step_is_one_plain_line(job_events):
    stream = io.StringIO()
    console = Console(stream)
    for event in job_events:
        console.on_event(event)
    console.close()
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("reviews: steps 1 to 3 in ")
    assert lines[1] == "starting rollout workers ..."
    steps = [line for line in lines if line.startswith("step 2/3")]
    assert steps == ["step 2/3  reward 0.2  kl 0.001  length 30  rollout 212.4 tok/s  staleness 0  version 2  10s left"]
    assert lines[-1] == "succeeded"
    assert "\x1b" not in stream.getvalue()


def test_a_job_that_only_generates_tells_how_far_it_has_come():
    stream = io.StringIO()
    console = Console(stream)
    common: dict[str, Any] = {"time_s": 1.0, "step": 0}
    console.on_event(JobStarted(**common, job_name="pairs", job_dir=Path("runs/pairs-1"), num_steps=0, first_step=0))
    metrics = {"preferences/num_pairs": 12.0, "preferences/label_ceiling": 0.75}
    console.on_event(
        Generated(**common, task="preferences", num_done=14, num_total=20, metrics=metrics, path=Path("x.jsonl"))
    )
    assert stream.getvalue().splitlines() == [
        "pairs: in runs/pairs-1",
        "preferences 14/20  label_ceiling 0.75  num_pairs 12",
    ]


def test_a_job_without_rewards_shows_loss_and_accuracy_and_no_speed_of_workers_it_has_not():
    stream = io.StringIO()
    lines = PlainLines(stream)
    metrics = {
        "learner/loss": 0.61,
        "learner/accuracy": 0.7,
        "rollout/tokens_per_s": 0.0,
        "learner/tokens_per_s": 900.0,
    }
    lines.on_event(StepDone(time_s=1.0, step=1, version=1, metrics=metrics, groups=()))
    held_out = {"eval/loss": 0.5, "eval/accuracy": 0.8, "eval/margin": 1.5}
    lines.on_event(Evaluated(time_s=2.0, step=1, metrics=held_out, groups=()))
    assert stream.getvalue().splitlines() == [
        "step 1/0  loss 0.61  accuracy 0.7  learner 900 tok/s  version 1",
        "step 1: held-out  loss 0.5  accuracy 0.8  margin 1.5",
    ]


def test_the_panel_names_what_is_not_a_reward():
    evaluations = [
        Evaluated(time_s=1.0, step=step, metrics={"eval/loss": loss}, groups=()) for step, loss in ((0, 2.0), (5, 1.0))
    ]
    assert "loss 2 -> 1 (step 5)" in rendered(progress_after(evaluations), now_s=2.0)


def test_a_kind_of_reward_failure_is_told_once(job_events):
    stream = io.StringIO()
    lines = PlainLines(stream)
    for event in job_events:
        lines.on_event(event)
    assert stream.getvalue().count("warning: reward:vader timed_out: took 5 s") == 1


def test_on_a_terminal_the_panel_is_drawn_and_the_terminal_given_back(job_events):
    terminal = Terminal()
    console = Console(terminal)
    assert isinstance(console._shown, LivePanel)
    for event in job_events:
        console.on_event(event)
    console.close()
    console.close()
    assert "step 3/3" in terminal.getvalue()
    assert terminal.getvalue().endswith(("\x1b[?25h", "\x1b[?25h\n", "\n"))


def test_the_panel_shows_what_matters(job_events):
    text = rendered(progress_after(job_events[:-1]), now_s=133.0)
    for shown in (
        "reviews",
        "step 3/3",
        "33s elapsed",
        "0.3  ▁▅█",
        "0.1 -> 0.6 (step 3)",
        "kl 0.001",
        "rollout 212.4",
        "max 0",
        "version 3",
        "1 groups dropped   2 rewards invalid",
        "warning: slow reward",
    ):
        assert shown in text


def test_the_panel_leaves_out_what_the_job_does_not_report(job_events):
    text = rendered(progress_after(job_events[:1]), now_s=100.0)
    assert "kl" not in text
    assert "reference" not in text


def test_markup_and_control_characters_in_a_notice_are_text(job_events):
    notice = Notice(time_s=1.0, step=0, level="info", text="[bold]x[/nope]")
    assert "[bold]x[/nope]" in rendered(progress_after([job_events[0], notice]), now_s=1.0)


def test_the_panel_fits_a_narrow_terminal(job_events):
    text = rendered(progress_after(job_events), now_s=133.0, width=60)
    assert max(map(len, text.splitlines())) <= 60


def test_time_left_follows_the_recent_pace():
    progress = Progress()
    progress.see(JobStarted(time_s=0.0, step=0, job_name="x", job_dir=None, num_steps=100, first_step=0))
    assert progress.eta_s() is None
    times_s = [1000.0] + [1000.0 + 2 * i for i in range(1, 20)]
    for step, time_s in enumerate(times_s, start=1):
        progress.see(StepDone(time_s=time_s, step=step, version=step, metrics={}, groups=()))
    assert progress.eta_s() == 2.0 * 80


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200), st.integers(1, 60))
@example([0.0, 2.2250738585072014e-308], 2)
def test_sparkline_has_a_character_a_column_and_stays_in_range(values, width):
    line = sparkline(values, width=width)
    assert len(line) == min(width, len(values))
    assert set(line) <= set(BARS)


@given(st.text(), st.integers(4, 80))
def test_an_excerpt_is_one_printable_line_within_its_width(text, width):
    for keep in ("start", "end"):
        line = excerpt(text, width=width, keep=keep)
        assert len(line) <= width
        assert "\n" not in line
        assert printable(line) == line


@given(st.floats(0, 1e7))
def test_a_duration_has_at_most_two_units(seconds):
    text = duration(seconds)
    assert sum(char.isalpha() for char in text) <= 2
