from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from rlhf_cluster.cli import failure
from rlhf_cluster.cli.main import VERBS
from rlhf_cluster.cli.main import rlhf as program
from rlhf_cluster.errors import (
    BadRequest,
    ConfigError,
    Interrupted,
    LearnerError,
    ModelError,
    NotAuthorized,
    NotOnService,
    RoleTimeout,
    ServiceAway,
    ServiceError,
)


def lacks(module: str) -> Callable[..., None]:
    """A program that imports what is not there."""

    def start(*_: object, **__: object) -> None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    return start


def test_a_package_of_an_extra_that_is_missing_is_told_with_what_to_install(rlhf, monkeypatch):
    monkeypatch.setattr(program, "main", lacks("torch.nn"))
    code, _, err = rlhf("run", "word-world")
    assert (code, err) == (2, "Error: torch is not installed here: pip install 'rlhf-cluster[cpu]', or [gpu]\n")


def test_a_module_of_ours_that_is_missing_is_a_defect_and_no_message(rlhf, monkeypatch):
    monkeypatch.setattr(program, "main", lacks("rlhf_cluster.no_such_module"))
    with pytest.raises(ModuleNotFoundError):
        rlhf("list")


def test_help_lists_every_verb_with_its_line(rlhf):
    code, out, _ = rlhf("--help")
    assert code == 0
    for verb, (_, help_line) in VERBS.items():
        assert f"  {verb} " in out
        assert help_line in out


def test_no_arguments_at_all_show_the_help(rlhf):
    assert rlhf()[:2] == rlhf("--help")[:2]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_of_its_own(rlhf, verb):
    code, out, _ = rlhf(verb, "--help")
    assert code == 0
    assert f"Usage: rlhf {verb}" in out


def test_a_mistyped_verb_is_a_usage_error_that_suggests_the_right_one(rlhf):
    code, _, err = rlhf("runn")
    assert code == 2
    assert "runn" in err
    assert "run" in err.splitlines()[-1]


def test_a_missing_argument_is_a_usage_error(rlhf):
    code, _, err = rlhf("run")
    assert code == 2
    assert "JOB" in err


def test_the_version_is_told(rlhf):
    assert rlhf("--version")[1].startswith("rlhf, version ")


def test_usage_errors_are_json_when_json_is_asked_for(rlhf):
    code, out, err = rlhf("run", "-o", "json")
    assert (code, out) == (2, "")
    assert json.loads(err)["error"]["type"] == "MissingParameter"


@pytest.mark.parametrize("verb", ["run", "plan", "eval"])
def test_a_job_that_does_not_exist_is_not_found(rlhf, verb):
    code, _, err = rlhf(verb, "no-such-job.toml")
    assert code == 3
    assert err.startswith("Error: no job file and no recipe is called 'no-such-job.toml'")


def test_a_wrong_job_file_is_one_clear_message_without_a_traceback(rlhf, tmp_path):
    job = tmp_path / "job.toml"
    job.write_text('name = "x"\nmodle = "y"\n')
    code, out, err = rlhf("run", str(job))
    assert (code, out) == (2, "")
    assert "did you mean 'model'" in err
    assert "Traceback" not in err


def test_a_wrong_job_file_is_one_json_object_with_o_json(rlhf, tmp_path):
    job = tmp_path / "job.toml"
    job.write_text("name = 3\n")
    code, _, err = rlhf("run", str(job), "-o", "json")
    assert json.loads(err)["error"]["exit_code"] == code == 2


def test_the_traceback_is_there_for_who_asks(rlhf, monkeypatch):
    monkeypatch.setenv("RLHF_DEBUG", "1")
    with pytest.raises(failure.NotFound):
        rlhf("run", "no-such-job.toml")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (ModelError("x"), 2),
        (failure.NotFound("x"), 3),
        (Interrupted("x"), 130),
        (LearnerError("x"), 1),
        (RoleTimeout("x"), 1),
        (BadRequest("x"), 2),
        (NotOnService("x"), 3),
        (NotAuthorized("x"), 4),
        (ServiceAway("x"), 5),
        (ServiceError("x"), 1),
        (failure.Detached("x"), 130),
    ],
)
def test_each_error_has_its_exit_code(error, code):
    assert failure.exit_code(error) == code


def test_an_error_of_a_role_names_it_in_json(capsys):
    error = RoleTimeout("no answer", role="learner", worker_id="learner-0", activity="updating")
    error.add_note("job directory: runs/x-1")
    assert failure.report(error, as_json=True) == 1
    assert json.loads(capsys.readouterr().err)["error"] == {
        "type": "RoleTimeout",
        "message": "no answer",
        "exit_code": 1,
        "notes": ["job directory: runs/x-1"],
        "role": "learner",
        "worker_id": "learner-0",
        "activity": "updating",
    }


def test_an_error_of_a_service_carries_what_its_log_is_searched_by(capsys):
    error = NotAuthorized("no token", status=401, code="unauthenticated", request_id="req_1")
    assert failure.report(error, as_json=True) == 4
    told = json.loads(capsys.readouterr().err)["error"]
    assert (told["status"], told["code"], told["request_id"]) == (401, "unauthenticated", "req_1")


def test_who_detaches_has_made_no_error(capsys):
    assert failure.report(failure.Detached("detached: the job goes on"), as_json=False) == 130
    assert capsys.readouterr().err == "detached: the job goes on\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "-o", "json"], True),
        (["run", "--output=json"], True),
        (["run", "-ojson"], True),
        (["run", "--output", "json"], True),
        (["list", "-o", "jsonl"], True),
        (["list", "-ojsonl"], True),
        (["run", "-o", "table"], False),
        (["chat", "--prompt", "json"], False),
    ],
)
def test_whether_json_is_wanted_is_seen_before_parsing(arguments, expected):
    assert failure.wants_json(arguments) is expected
