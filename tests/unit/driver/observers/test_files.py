"""TensorBoard, samples and curve: what they leave in the job directory."""

from __future__ import annotations

import pyarrow.parquet
import pytest

from rlhf_cluster.driver.observers import journal
from rlhf_cluster.driver.observers.curve import Curve, Points, draw, smoothed
from rlhf_cluster.driver.observers.journal import Journal
from rlhf_cluster.driver.observers.samples import Samples, rows
from rlhf_cluster.driver.observers.tensorboard import TensorBoard
from rlhf_cluster.records import Invalid
from rlhf_cluster.records.events import JobStarted, StepDone

PNG = b"\x89PNG\r\n\x1a\n"


def watch(observer, events) -> None:
    for event in events:
        observer.on_event(event)
    observer.close()
    observer.close()


def test_samples_are_one_parquet_file_a_step_and_an_evaluation(job_events, tmp_path):
    watch(Samples(tmp_path), job_events)
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [
        "eval-000000.parquet",
        "eval-000003.parquet",
        "step-000001.parquet",
        "step-000002.parquet",
        "step-000003.parquet",
    ]
    table = pyarrow.parquet.read_table(tmp_path / "samples" / "step-000001.parquet")
    assert table.num_rows == 4
    assert table.slice(0, 1).to_pylist() == [
        {
            "step": 1,
            "request_id": 1,
            "prompt_id": "1/0",
            "prompt": "prompt 1",
            "completion": "good film",
            "reward": 1.0,
            "reward/vader": 1.0,
            "advantage_mean": -0.5,
            "length": 2,
            "finish_reason": "stop",
            "version_oldest": 0,
            "version_newest": 1,
            "worker_id": "rollout-0",
            "invalid": "",
        }
    ]


def test_a_completion_without_a_reward_has_a_null_and_its_reason(group):
    import dataclasses

    import numpy as np

    failure = Invalid(completion=1, source="reward:vader", kind="raised", message="ValueError")
    failed = dataclasses.replace(
        group(1), rewards=np.array([1.0, np.nan], dtype=np.float32), invalid=(failure,), breakdown={}, advantages=None
    )
    good, bad = rows([failed], step=1)
    assert (good["reward"], good["invalid"]) == (1.0, "")
    assert (bad["reward"], bad["invalid"]) == (None, "reward:vader raised: ValueError")


def test_groups_with_different_breakdowns_share_all_columns(group):
    import dataclasses

    first, second = dataclasses.replace(group(1), breakdown={}), group(2)
    assert [row["reward/vader"] for row in rows([first, second], step=1)] == [None, None, 1.0, 0.0]


def test_an_empty_completion_is_a_row_without_versions(group):
    import dataclasses

    import numpy as np

    empty = dataclasses.replace(
        group(1, texts=("",)),
        lengths=np.array([0], dtype=np.int32),
        token_ids=np.array([], dtype=np.int32),
        versions=np.array([], dtype=np.int32),
        advantages=np.array([], dtype=np.float32),
    )
    assert rows([empty], step=1)[0]["version_oldest"] is None


def test_tensorboard_writes_the_finite_metrics_of_each_step(job_events, tmp_path):
    watch(TensorBoard(tmp_path), job_events)
    (events_file,) = (tmp_path / "tensorboard").iterdir()
    content = events_file.read_bytes()
    assert content.count(b"reward/mean") == 3
    assert content.count(b"eval/reward_mean") == 2
    assert b"learner/loss" not in content


def test_the_curve_is_drawn_at_the_end(job_events, tmp_path):
    watch(Curve(tmp_path), job_events)
    assert (tmp_path / "curve.png").read_bytes().startswith(PNG)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_curve_is_drawn_on_the_way_when_enough_time_has_passed(job_events, tmp_path):
    curve = Curve(tmp_path, every_s=5.0)
    for event in job_events[:4]:
        curve.on_event(event)
    curve.close()
    assert (tmp_path / "curve.png").exists()


def test_the_curve_of_a_job_without_any_metric_is_still_a_picture(tmp_path):
    draw(Points(title="nothing yet"), tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(PNG)


def test_a_job_without_rewards_has_a_curve_of_its_loss(tmp_path):
    drawn = {}
    for name in ("learner/loss", "learner/kl"):
        draw(Points(series={name: [(1, 3.0), (2, 2.0)], "eval/accuracy": [(2, 0.75)]}), tmp_path / "curve.png")
        drawn[name] = (tmp_path / "curve.png").read_bytes()
    assert all(picture.startswith(PNG) for picture in drawn.values())
    assert drawn["learner/loss"] != drawn["learner/kl"]


def test_a_resumed_curve_keeps_the_steps_before_the_checkpoint_and_no_later_ones(job_events, tmp_path):
    job_dir = tmp_path / "job"
    watch(Journal(job_dir), job_events)
    curve = Curve(job_dir)
    curve.on_event(JobStarted(time_s=0.0, step=2, job_name="x", job_dir=job_dir, num_steps=9, first_step=2))
    curve.on_event(StepDone(time_s=1.0, step=3, version=3, metrics={"reward/mean": 0.9}, groups=()))
    curve.close()
    assert curve._points.series["reward/mean"] == [(1, 0.1), (2, 0.2), (3, 0.9)]
    assert list(journal.read(job_dir))


def test_a_curve_that_cannot_be_written_says_so_when_closed(job_events, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    curve = Curve(blocked)
    for event in job_events:
        curve.on_event(event)
    with pytest.raises(OSError, match="file"):
        curve.close()


def test_smoothing_a_constant_changes_nothing():
    assert smoothed([2.0] * 5) == pytest.approx([2.0] * 5)
