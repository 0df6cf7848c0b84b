from __future__ import annotations

from pathlib import Path

from rlhf_cluster.driver.observers import journal
from rlhf_cluster.driver.observers.summary import summarise
from rlhf_cluster.records.events import Evaluated, GuardTripped, JobStarted


def entries(events):
    return [journal.entry(event) for event in events]


def test_the_summary_tells_reward_before_and_after_and_where_things_lie(job_events, tmp_path):
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "curve.png").touch()
    text = summarise(entries(job_events)).text()
    assert "reviews: succeeded after 3 of 3 steps, 33s" in text
    assert "held-out reward 0.100 -> 0.600 (+0.500)" in text
    assert f"learning curve  {tmp_path}/job/curve.png" in text
    assert f"next            rlhf chat {tmp_path}/job/checkpoints/step-000003" in text


def test_three_completions_of_the_same_prompts_are_shown_before_and_after(job_events):
    summary = summarise(entries(job_events))
    assert [pair.prompt for pair in summary.completions] == ["prompt 100", "prompt 101", "prompt 102"]
    assert "before  [1] dull\nafter   [1] \ufffd[31mlovely" in summary.text()


def test_without_evaluations_and_checkpoint_the_summary_leaves_them_out(job_events):
    kept = [event for event in job_events if type(event).__name__ in {"JobStarted", "StepDone"}]
    summary = summarise(entries(kept))
    assert summary.outcome == "unfinished"
    assert "held-out" not in summary.text()
    assert "rlhf chat" not in summary.text()
    assert summary.next_command() is None


def test_one_evaluation_alone_compares_nothing(job_events):
    summary = summarise(entries(job_events[:4]))
    assert summary.completions == ()
    assert (summary.measure, summary.before, summary.after) == ("reward", 0.1, None)
    assert "held-out reward 0.100 before the first step" in summary.text()


def judged_by(metrics_before, metrics_after, job_events, **files):
    job_dir = job_events[0].job_dir
    checkpoint = job_dir / "checkpoints" / "step-000003"
    checkpoint.mkdir(parents=True)
    for name, content in files.items():
        (checkpoint / f"{name}.json").write_text(content)
    evaluations = [
        Evaluated(time_s=102.0 + step, step=step, metrics=metrics, groups=())
        for step, metrics in ((0, metrics_before), (3, metrics_after))
    ]
    return summarise(entries([job_events[0], *evaluations, *job_events[-2:]]))


def test_a_job_without_rewards_is_judged_by_its_held_out_loss(job_events):
    summary = judged_by({"eval/loss": 2.5}, {"eval/loss": 1.25}, job_events)
    assert (summary.measure, summary.before, summary.after) == ("loss", 2.5, 1.25)
    assert "held-out loss 2.500 -> 1.250 (-1.250)" in summary.text()


def test_nobody_is_asked_to_chat_with_a_reward_model(job_events):
    config = '{"architectures": ["LlamaForSequenceClassification"]}'
    metrics = {"eval/loss": 0.7, "eval/accuracy": 0.5}, {"eval/loss": 0.4, "eval/accuracy": 0.8}
    summary = judged_by(*metrics, job_events, config=config)
    assert "held-out accuracy 0.500 -> 0.800 (+0.300)" in summary.text()
    assert summary.next_command() == f"rlhf report {job_events[0].job_dir}"


def test_an_end_before_a_resume_is_not_the_end(job_events):
    resumed = JobStarted(time_s=500.0, step=3, job_name="reviews", job_dir=Path("x"), num_steps=9, first_step=3)
    summary = summarise(entries([*job_events, resumed]))
    assert summary.outcome == "unfinished"
    assert summary.wall_s == 400.0
    assert summary.checkpoint.name == "step-000003"


def test_a_journal_without_a_start_has_no_summary():
    assert summarise([]) is None


def test_the_summary_tells_what_guards_have_warned_about(job_events):
    told = {"time_s": 20.0, "step": 2, "level": "warning", "guard": "length"}
    warned = GuardTripped(**told, deed="warn", text="guard length: completions are longer than at first")
    stopped = GuardTripped(**told, deed="stop", text="what the message says already")
    summary = summarise(entries([*job_events[:-1], warned, stopped, job_events[-1]]))
    assert summary.guards == ("guard length: completions are longer than at first",)
    assert "guard length: completions are longer than at first" in summary.text()
