"""Which service is asked and with which token, and the verbs about tokens, logins and the service itself."""

from __future__ import annotations

import json
import os
import stat

import pytest
from click.testing import CliRunner

from rlhf_cluster.cli.main import rlhf as program
from rlhf_cluster.client.access import home_dir


def test_without_a_server_one_sentence_says_how_to_have_one(rlhf):
    for arguments in (["list"], ["show", "@last"], ["submit", "word-world"], ["status"], ["pause", "some-job"]):
        code, out, err = rlhf(*arguments)
        assert (code, out) == (5, "")
        assert err == "Error: no server is known: `rlhf up` starts one, or --server or RLHF_SERVER names one\n"


def test_a_server_that_does_not_answer_is_unavailable(rlhf, monkeypatch):
    monkeypatch.setenv("RLHF_SERVER", "http://127.0.0.1:9")
    code, _, err = rlhf("list", "-o", "json")
    error = json.loads(err)["error"]
    assert (code, error["type"], error["code"]) == (5, "ServiceAway", "unreachable")


def test_what_is_no_address_is_a_usage_error(rlhf):
    code, _, err = rlhf("list", "--server", "127.0.0.1:8420")
    assert (code, "has to be an address such as http://" in err) == (2, True)


def test_a_wrong_token_is_exit_code_4(rlhf, service):
    code, _, err = rlhf("list", "--token", "rlhf_api_wrong", "-o", "jsonl")
    error = json.loads(err)["error"]
    assert (code, error["exit_code"], error["status"], error["code"]) == (4, 4, 401, "unauthenticated")


def test_a_token_that_may_not_do_it_is_exit_code_4_and_says_what_it_may(rlhf, service, monkeypatch):
    monkeypatch.setenv("RLHF_TOKEN", service.tokens["read"])
    code, _, err = rlhf("submit", "word-world")
    assert (code, "needs the scope 'submit'" in err) == (4, True)


def test_a_login_is_kept_for_its_owner_alone_and_used_from_then_on(rlhf, service, monkeypatch):
    monkeypatch.delenv("RLHF_SERVER")
    monkeypatch.delenv("RLHF_TOKEN")
    code, out, _ = rlhf("login", service.url + "/", "--token", service.tokens["submit"])
    assert (code, "as submiter, who may submit" in out) == (0, True)
    path = home_dir() / "login.json"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    who = json.loads(rlhf("whoami", "-o", "json")[1])
    assert who == {"url": service.url, "source": "rlhf login", "name": "submiter", "scopes": ["submit"]}
    assert rlhf("logout")[1] == f"logged out of {service.url}\n"
    assert not path.exists()
    assert rlhf("logout")[1] == "no login was stored\n"
    assert rlhf("whoami")[0] == 5


def test_a_login_that_the_service_does_not_accept_is_not_stored(rlhf, service):
    assert rlhf("login", service.url, "--token", "rlhf_api_wrong")[0] == 4
    assert not (home_dir() / "login.json").exists()


def test_a_token_is_read_from_stdin_where_no_other_is_given(service, monkeypatch):
    monkeypatch.delenv("RLHF_TOKEN")
    runner = CliRunner()
    done = runner.invoke(program, ["login", service.url], input=service.tokens["read"] + "\n", standalone_mode=False)
    assert done.exception is None
    assert "logged in" in done.output


def test_the_service_of_this_machine_is_found_without_being_named(rlhf, service, monkeypatch):
    monkeypatch.delenv("RLHF_SERVER")
    monkeypatch.delenv("RLHF_TOKEN")
    home_dir().mkdir(parents=True)
    told = {"url": service.url, "token": service.tokens["admin"], "process_id": 1, "ray": {}}
    (home_dir() / "server.json").write_text(json.dumps(told))
    code, out, _ = rlhf("whoami")
    assert (code, "known from  rlhf up" in out, "adminer" in out) == (0, True, True)


def test_arguments_go_before_everything_else(rlhf, service, monkeypatch):
    url = service.url
    monkeypatch.setenv("RLHF_SERVER", "http://127.0.0.1:9")
    monkeypatch.setenv("RLHF_TOKEN", "rlhf_api_of_another_server")
    assert rlhf("whoami", "--server", url)[0] == 4  # the other server's token was not sent, so there is none
    assert rlhf("whoami", "--server", url, "--token", service.tokens["read"])[0] == 0


@pytest.fixture
def admin(service, monkeypatch):
    monkeypatch.setenv("RLHF_TOKEN", service.tokens["admin"])
    return service


def test_a_token_is_made_used_listed_and_revoked(rlhf, admin):
    made = json.loads(rlhf("token", "create", "ann", "--scope", "submit", "--expires", "30d", "-o", "json")[1])
    assert (made["scopes"], made["expires_s"] > made["created_s"]) == (["submit"], True)
    assert rlhf("whoami", "--token", made["secret"])[1].splitlines()[2].split() == ["name", "ann"]
    code, out, _ = rlhf("token", "list")
    assert code == 0
    assert made["token_id"] in out
    assert made["secret"] not in out
    assert rlhf("token", "revoke", made["token_id"]) == (0, f"revoked {made['token_id']}\n", "")
    assert rlhf("whoami", "--token", made["secret"])[0] == 4
    assert rlhf("token", "revoke", made["token_id"])[0] == 3


def test_a_new_token_is_printed_alone_so_that_it_can_be_piped(rlhf, admin):
    code, out, err = rlhf("token", "create", "pipe")
    assert (code, err) == (0, "")
    assert rlhf("whoami", "--token", out.strip())[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--expires", "soon"], 2), (["--scope", "root"], 2), (["--expires", "0d"], 2)]
)
def test_tokens_that_make_no_sense_are_usage_errors(rlhf, admin, arguments, code):
    assert rlhf("token", "create", "ann", *arguments)[0] == code


def test_only_an_admin_makes_tokens(rlhf, service):
    assert rlhf("token", "create", "ann")[0] == 4


def test_a_cluster_that_is_not_there_is_told_with_the_reason(rlhf, service):
    code, out, _ = rlhf("cluster")
    assert (code, out.startswith("Ray         not reached")) == (0, True)
    assert json.loads(rlhf("cluster", "-o", "json")[1])["is_reachable"] is False


def test_the_description_of_the_api_is_printed(rlhf, service):
    code, out, _ = rlhf("openapi")
    assert (code, json.loads(out)["info"]["title"]) == (0, "rlhf_cluster")
