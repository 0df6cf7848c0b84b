"""What `rlhf doctor` says to whoever runs a service on this machine."""

from __future__ import annotations

import json
import socket

import pytest

from rlhf_cluster.cli import service_checks
from rlhf_cluster.service import up


def checks_of(data_dir, *, database=None, ray_address=None):
    found = service_checks.service_checks(data_dir, database=database, ray_address=ray_address)
    return {check.name: check for check in found}


def test_before_the_first_start_nothing_is_wrong_and_nothing_is_made(tmp_path):
    checks = checks_of(tmp_path / "service")
    assert {checks[name].status for name in ("service data", "service auth", "database", "ray cluster")} == {"ok"}
    assert not (tmp_path / "service").exists()


def test_a_client_without_the_packages_of_a_service_is_told_so_once(tmp_path, monkeypatch):
    monkeypatch.setitem(service_checks.EXTRAS, "service", ("fastapi", "no_such_package"))
    [check] = checks_of(tmp_path).values()
    assert (check.status, "without no_such_package" in check.found) == ("ok", True)


def test_a_database_and_a_cluster_that_do_not_answer_are_failures_with_their_fix(tmp_path):
    checks = checks_of(tmp_path, database="postgresql://u:secret@127.0.0.1:1/x", ray_address="127.0.0.1:1")
    for name, option in (("database", "--database"), ("ray cluster", "--ray-address")):
        assert (checks[name].status, option in checks[name].fix) == ("fail", True)
    assert "secret" not in checks["database"].line()


def test_a_database_that_is_no_database_is_a_failure(tmp_path):
    assert checks_of(tmp_path, database="mysql://u@h/x")["database"].status == "fail"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_database_that_answers_says_whether_its_tables_are_ours(kind, tmp_path, request):
    from rlhf_cluster.service.store.database import Database

    is_sqlite = kind == "sqlite"
    url = f"sqlite:///{tmp_path / 'a.db'}" if is_sqlite else request.getfixturevalue("new_postgresql")()
    assert "the next start" in checks_of(tmp_path, database=url)["database"].found
    opened = Database(url)
    opened.migrate()
    opened.close()
    assert checks_of(tmp_path, database=url)["database"].found == f"{kind} answers; its tables are this version's"


def test_a_token_that_others_can_read_is_a_failure(tmp_path):
    token = tmp_path / up.ADMIN_TOKEN
    token.write_text("secret")
    token.chmod(0o644)
    check = checks_of(tmp_path)["service auth"]
    assert (check.status, f"chmod 600 {token}" in check.fix) == ("fail", True)
    token.chmod(0o600)
    assert checks_of(tmp_path)["service auth"].status == "ok"


def test_a_port_that_is_taken_is_told_with_what_to_do(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(up, "DEFAULT_PORT", taken.getsockname()[1])
        check = checks_of(tmp_path)["service port"]
    assert (check.status, "--port" in check.fix) == ("warn", True)


def test_a_service_that_was_started_is_asked_whether_it_answers(tmp_path, service):
    path = tmp_path / up.SERVER
    path.write_text(json.dumps({"url": service.url, "token": "", "process_id": 1, "ray": {}}))
    path.chmod(0o600)
    assert checks_of(tmp_path)["service port"].found == f"the service answers at {service.url}"
    path.write_text(json.dumps({"url": "http://127.0.0.1:9", "token": "", "process_id": 1, "ray": {}}))
    assert checks_of(tmp_path)["service port"].status == "fail"
