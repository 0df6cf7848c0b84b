from __future__ import annotations

import json
import os
import stat

import pytest

from rlhf_cluster.cli import checks


def test_doctor_tells_every_check_and_agrees_with_its_exit_code(rlhf, tmp_path):
    code, out, _ = rlhf("doctor", "--quick", "--runs-dir", str(tmp_path), "-o", "json")
    report = json.loads(out)
    statuses = {check["status"] for check in report["checks"]}
    assert statuses <= {"ok", "warn", "fail"}
    assert report["ok"] is ("fail" not in statuses)
    assert code == (0 if report["ok"] else 1)
    assert all(check["fix"] for check in report["checks"] if check["status"] != "ok")


def test_doctor_prints_a_line_a_check(rlhf, tmp_path):
    _, out, _ = rlhf("doctor", "--quick", "--runs-dir", str(tmp_path))
    assert out.splitlines()[0].startswith("ok    python: 3.")
    assert out.splitlines()[-1] == "ready" or out.splitlines()[-1].startswith("not ready: ")


def test_a_library_that_is_missing_is_a_failure_with_its_fix(monkeypatch):
    monkeypatch.setitem(checks.PROBES, "nosuchlibrary", "import nosuchlibrary")
    check = checks.library("nosuchlibrary")
    assert check.status == "fail"
    assert "No module named 'nosuchlibrary'" in check.found
    assert "install" in check.fix


def test_a_library_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setitem(checks.PROBES, "slow", "import time; time.sleep(60)")
    monkeypatch.setattr(checks, "IMPORT_LIMIT_S", 0.5)
    assert checks.library("slow").status == "fail"


def test_a_mismatched_torchvision_is_named_with_its_fix(monkeypatch):
    program = "raise RuntimeError('operator torchvision::nms does not exist')"
    monkeypatch.setitem(checks.PROBES, "transformers", program)
    assert "pip uninstall -y torchvision" in checks.library("transformers").fix


def test_a_library_that_imports_tells_its_version(monkeypatch):
    monkeypatch.setitem(checks.PROBES, "click", "print('1.2.3')")
    assert checks.library("click") == checks.Check(name="click", status="ok", found="1.2.3")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_runs_directory_that_cannot_be_written_is_a_failure(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert checks.runs(tmp_path).status == "fail"


def test_a_runs_directory_that_is_not_there_yet_is_judged_by_its_parent(tmp_path):
    check = checks.runs(tmp_path / "new" / "runs")
    assert str(tmp_path) in check.found
    assert list(tmp_path.iterdir()) == []


def test_a_token_that_others_can_read_is_told(tmp_path, monkeypatch):
    token = tmp_path / "auth_token"
    token.write_text("secret")
    token.chmod(0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    assert checks.ray_authentication().fix == f"chmod 600 {token}"
    token.chmod(0o600)
    assert checks.ray_authentication().status == "ok"


def test_an_unknown_ray_mode_is_told(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "kerberos")
    assert checks.ray_authentication().status == "warn"


def test_spinning_threads_are_told(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert checks.threading().fix == "export OMP_WAIT_POLICY=PASSIVE"


def test_more_threads_than_cores_are_told(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "100000")
    assert "OMP_NUM_THREADS" in checks.threading().fix
