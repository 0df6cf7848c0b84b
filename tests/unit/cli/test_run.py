"""`run`, `resume`, `plan`, `eval` and `chat` on the word world, in process, with the transformers engine."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from rlhf_cluster.driver.observers import journal
from rlhf_cluster.models import word_world

TINY = (
    "model=quick",
    "runtime=local",
    "rollout.engine.type=transformers",
    "train.num_steps=2",
    "train.prompts_per_step=2",
    "train.completions_per_prompt=4",
    "evaluation.num_prompts=4",
    "evaluation.completions_per_prompt=1",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model cache that holds `quick`, a word-world model which was hardly taught."""
    home = tmp_path_factory.mktemp("home")
    (home / "models" / "quick").mkdir(parents=True)
    word_world.make(home / "models" / "quick", recipe=word_world.Recipe(num_steps=1, batch_size=2))
    return home


@pytest.fixture(autouse=True)
def _workplace(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHF_CLUSTER_HOME", str(home))
    monkeypatch.chdir(tmp_path)


def test_a_job_runs_to_its_summary_and_its_checkpoint_chats_and_evaluates(rlhf):
    code, out, err = rlhf("run", "word-world", *TINY, "-o", "json")
    summary = json.loads(out)
    assert code == 0
    assert "step 2/2" in err
    assert (summary["outcome"], summary["step"]) == ("succeeded", 2)
    assert len(summary["completions"]) == 3
    assert Path(summary["curve"]).is_file()
    checkpoint = summary["checkpoint"]
    assert summary["next_command"] == f"rlhf chat {checkpoint}"

    code, out, _ = rlhf("chat", checkpoint, "--prompt", "hello friend", "-n", "5", "-t", "0", "-o", "json")
    assert code == 0
    assert len(json.loads(out)["completion"].split()) <= 5

    code, out, _ = rlhf("eval", "word-world", *TINY, "--checkpoint", checkpoint, "-o", "json")
    assert code == 0
    assert json.loads(out)["metrics"]["eval/reward_mean"] == pytest.approx(summary["after"])


def test_ctrl_c_stops_after_the_step_says_how_to_resume_and_resuming_finishes(rlhf):
    # Observers are told of steps in this very process: this one presses Ctrl-C after the first.
    observed = f'observers=["journal", "{__name__}:CtrlC"]'
    code, out, err = rlhf("run", "word-world", *TINY, "train.num_steps=4", observed)
    job_dir = Path("runs/word-world-1").resolve()
    assert code == 130
    assert "stopping after the current step" in err
    assert f"rlhf resume {job_dir}" in out

    code, out, _ = rlhf("resume", str(job_dir))
    assert code == 0
    assert "succeeded after 4 of 4 steps" in out
    entries = list(journal.read(job_dir))
    assert [entry["step"] for entry in entries if entry["event"] == "StepDone"] == [1, 2, 3, 4]

    code, out, _ = rlhf("resume", str(job_dir))
    assert code == 0
    assert out == f"nothing to go on with: the job of {job_dir} has done all its 4 steps\n"
    assert list(journal.read(job_dir)) == entries, "no role is started for it"


def test_a_job_that_fails_tells_the_error_and_where_the_job_lies(rlhf):
    code, _, err = rlhf("run", "word-world", *TINY, "limits.start_s=0.001")
    assert code == 1
    assert "Traceback" not in err
    assert err.splitlines()[0].startswith("Error: ")
    assert f"job directory: {Path('runs/word-world-1').resolve()}" in err


def test_a_model_that_is_not_there_is_refused_before_anything_starts(rlhf):
    code, _, err = rlhf("run", "word-world", *TINY, "model=qick")
    assert code == 2
    assert "'qick'" in err


def test_a_plan_shows_the_arithmetic_and_starts_nothing(rlhf):
    code, out, _ = rlhf("plan", "word-world", *TINY)
    assert code == 0
    assert "2 prompts x 4 completions = 8 sequences" in out
    assert json.loads(rlhf("plan", "word-world", *TINY, "-o", "json")[1])["job_name"] == "word-world"
    assert list(Path().iterdir()) == []


def test_a_plan_that_can_never_fit_is_refused(rlhf):
    code, _, err = rlhf("plan", "word-world", "model=quick", "rollout.gpus=4096")
    assert code == 2
    assert "4096 GPUs" in err.replace(",", "")


class CtrlC:
    """An observer that presses Ctrl-C when the first step is done, once per job directory."""

    def __init__(self, job_dir: Path) -> None:
        self._pressed = job_dir / "pressed"

    def on_event(self, event: object) -> None:
        if type(event).__name__ == "StepDone" and not self._pressed.exists():
            self._pressed.touch()
            os.kill(os.getpid(), signal.SIGINT)

    def close(self) -> None:
        pass
