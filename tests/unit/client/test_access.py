"""Which server, which token."""

from __future__ import annotations

import json

import pytest

from rlhf_cluster.client.access import Access, find_access, forget_login, home_dir, is_loopback, store_login
from rlhf_cluster.errors import ConfigError, ServiceAway


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("RLHF_CLUSTER_HOME", str(tmp_path))
    for name in ("RLHF_SERVER", "RLHF_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def found(*given: str | None) -> tuple[str, str, str]:
    access = find_access(*given)
    return access.url, access.token, access.source


def up(url: str, token: str) -> None:
    home_dir().mkdir(parents=True, exist_ok=True)
    (home_dir() / "server.json").write_text(json.dumps({"url": url, "token": token}))


def test_arguments_then_environment_then_login_then_the_service_of_this_machine(monkeypatch):
    up("http://127.0.0.1:1", "t-up")
    assert found() == ("http://127.0.0.1:1", "t-up", "rlhf up")
    store_login(Access(url="https://b.example.org", token="t-login"))
    assert found() == ("https://b.example.org", "t-login", "rlhf login")
    monkeypatch.setenv("RLHF_SERVER", "https://c.example.org/")
    monkeypatch.setenv("RLHF_TOKEN", "t-env")
    assert found() == ("https://c.example.org", "t-env", "RLHF_SERVER")
    assert found("https://d.example.org", "t-arg") == ("https://d.example.org", "t-arg", "--server")


def test_a_token_is_for_the_server_that_it_came_with(monkeypatch):
    store_login(Access(url="https://b.example.org", token="t-login"))
    assert found("https://b.example.org/")[1] == "t-login"
    assert found("https://other.example.org")[1] == ""
    monkeypatch.setenv("RLHF_TOKEN", "t-env")
    assert found("https://other.example.org")[1] == "t-env"


def test_nothing_known_is_an_error_of_its_own():
    with pytest.raises(ServiceAway, match="`rlhf up` starts one") as caught:
        find_access()
    assert caught.value.code == "no_server"


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8420",
        "ftp://host",
        "http://",
        "https://host/?token=x",
        "https://host/#a",
        "http://[::1",
        "http://host:84200",
        "http://host:http",
    ],
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ConfigError, match="has to be an address"):
        find_access(url)


def test_a_file_that_is_damaged_counts_as_none():
    home_dir().mkdir(parents=True)
    for content in ("{", "[]", '{"url": 3'):
        (home_dir() / "login.json").write_text(content)
        with pytest.raises(ServiceAway):
            find_access()


def test_a_login_is_replaced_and_forgotten():
    store_login(Access(url="https://a.example.org", token="1"))
    store_login(Access(url="https://b.example.org", token="2"))
    assert found()[:2] == ("https://b.example.org", "2")
    assert [path.name for path in home_dir().iterdir()] == ["login.json"]
    assert (forget_login(), forget_login()) == ("https://b.example.org", None)


def test_a_token_is_not_shown_by_what_holds_it():
    assert "secret" not in repr(Access(url="https://a.example.org", token="secret"))


def test_loopback_is_this_machine_alone():
    assert [is_loopback(f"http://{host}:80") for host in ("127.0.0.1", "127.9.9.9", "localhost", "[::1]")] == [True] * 4
    assert not is_loopback("http://127.example.org")
