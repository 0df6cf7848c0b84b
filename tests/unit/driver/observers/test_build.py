from __future__ import annotations

import io

import pytest

from rlhf_cluster.driver.observers.build import NAMES, JobObservers, build
from rlhf_cluster.driver.run import write_job_file
from rlhf_cluster.errors import ConfigError
from rlhf_cluster.testing import make_job


class Alert:
    """An observer of somebody else's package."""

    seen: list[str]

    def __init__(self, job_dir) -> None:
        self.job_dir = job_dir
        Alert.seen = []

    def on_event(self, event) -> None:
        Alert.seen.append(type(event).__name__)

    def close(self) -> None:
        pass


def test_all_built_in_observers_watch_a_job_together(job_events, tmp_path):
    stream = io.StringIO()
    (tmp_path / "job").mkdir()
    write_job_file(tmp_path / "job", make_job())
    with build(NAMES, tmp_path / "job", stream=stream) as observers:
        for event in job_events:
            observers.on_event(event)
    assert {path.name for path in (tmp_path / "job").iterdir()} == {
        "job.json",
        "journal.jsonl",
        "evaluation.json",
        "answers.jsonl",
        "tensorboard",
        "samples",
        "curve.png",
    }
    assert "step 3/3" in stream.getvalue()


def test_an_observer_of_ones_own_is_named_by_import_path(job_events, tmp_path):
    with build([f"{__name__}:Alert"], tmp_path) as observers:
        observers.on_event(job_events[0])
    assert Alert.seen == ["JobStarted"]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("jurnal", "built in are console, journal"),
        ("no_such_module:Alert", "cannot import no_such_module"),
        ("rlhf_cluster.errors:ConfigErorr", "did you mean 'ConfigError'"),
        ("rlhf_cluster.errors:ConfigError", "on_event"),
    ],
)
def test_a_wrong_name_is_refused_before_the_job_starts(name, complaint):
    with pytest.raises(ConfigError, match=complaint):
        JobObservers([name])


def test_observers_open_in_the_directory_that_the_job_announces(job_events, tmp_path):
    observers = JobObservers(["journal", "journal"])
    for event in job_events:
        observers.on_event(event)
    observers.close()
    assert observers.job_dir == tmp_path / "job"
    assert len((tmp_path / "job" / "journal.jsonl").read_text().splitlines()) == len(job_events)


def test_a_job_that_never_starts_leaves_nothing_behind(tmp_path):
    observers = JobObservers(["journal", "curve"])
    observers.close()
    assert observers.job_dir is None
    assert list(tmp_path.iterdir()) == []
