"""The lines of the threat model, one by one: names, sites, cookies, headers, tokens, and what is never told."""

from __future__ import annotations

import hashlib
import time

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from rlhf_cluster.service.app import create_app
from rlhf_cluster.service.auth import COOKIE
from rlhf_cluster.service.failures import MAX_FAILURES
from rlhf_cluster.service.settings import ServiceSettings
from rlhf_cluster.service.store import tables, tokens

from .answers import BODY, JOBS, refusal
from .conftest import URL

SESSION = "/api/v1/auth/session"
ME = "/api/v1/auth/me"


@pytest.fixture
def browser(app):
    """One that has no token yet."""
    return TestClient(app, base_url=URL, raise_server_exceptions=False)


@pytest.fixture
def secret(db):
    with db.writing() as connection:
        return tokens.add(connection, name="ada", scopes=["submit"], now_s=time.time())[1]


@pytest.fixture
def logged_in(browser, secret):
    assert browser.post(SESSION, json={"token": secret}).status_code == 201
    return browser


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8420", "127.0.0.1.evil.example", "[::2]", "", "a@b:x"])
def test_a_name_that_is_not_the_services_is_refused_whatever_it_leads_to(browser, host):
    refusal(browser.get("/api/v1/version", headers={"Host": host}), 421, "unknown_host")


@pytest.mark.parametrize("host", ["127.0.0.1:8420", "localhost", "LOCALHOST:1", "[::1]:8420", "[::1]"])
def test_its_own_names_are_let_through(browser, host):
    assert browser.get("/api/v1/version", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_page_of_another_site_changes_nothing_with_the_cookie_and_logs_nobody_in(logged_in, secret, headers):
    refusal(logged_in.post(JOBS, json=BODY, headers=headers), 403, "cross_site")
    refusal(logged_in.delete(SESSION, headers=headers), 403, "cross_site")
    refusal(logged_in.post(SESSION, json={"token": secret}, headers=headers), 403, "cross_site")
    own = {"Origin": URL, "Sec-Fetch-Site": "same-origin"}
    assert logged_in.post(JOBS, json=BODY, headers=own).status_code == 201


def test_the_cookie_is_for_no_script_and_no_other_site_and_holds_no_token(browser, db, secret):
    answer = browser.post(SESSION, json={"token": secret})
    given = answer.headers["set-cookie"].lower()
    assert all(flag in given for flag in ("httponly", "samesite=strict", "path=/", "max-age="))
    assert "secure" not in given  # it would not come back over http
    assert secret not in answer.headers["set-cookie"]
    session = browser.cookies[COOKIE]
    assert browser.get(ME).json()["name"] == "ada"
    assert browser.delete(SESSION).status_code == 204
    refusal(browser.get(ME, headers={"Cookie": f"{COOKIE}={session}"}), 401, "unauthenticated")


@pytest.mark.parametrize(("public_url", "url"), [("https://rlhf.example.org", URL), (None, "https://127.0.0.1:8420")])
def test_the_cookie_travels_over_https_alone_where_there_is_https(tmp_path, public_url, url):
    app = create_app(ServiceSettings(data_dir=tmp_path, public_url=public_url))
    with app.state.service.db.writing() as connection:
        _, secret = tokens.add(connection, name="ada", scopes=["read"], now_s=time.time())
    answer = TestClient(app, base_url=url).post(SESSION, json={"token": secret})
    assert "secure" in answer.headers["set-cookie"].lower()
    app.state.service.db.close()


@pytest.mark.parametrize("path", ["/", "/api/v1/version", "/api/v1/jobs", "/nowhere", "/healthz"])
def test_every_answer_tells_browsers_to_keep_other_sites_out(browser, path):
    headers = browser.get(path, headers={"Origin": "http://evil.example"}).headers
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "script-src" not in policy  # so scripts are those of `default-src`, never inline
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert not [name for name in headers if name.startswith("access-control-")]


def test_no_other_site_is_ever_allowed_to_ask(browser):
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    answer = browser.options(JOBS, headers=asked)
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_token_in_an_address_is_none(browser, secret):
    for path in (ME, JOBS, "/api/v1/events/stream"):
        refusal(browser.get(path, params={"token": secret}), 401, "unauthenticated")


def test_a_login_link_opens_one_session_and_nothing_else(app, browser, secret):
    asked = browser.post("/api/v1/auth/login-links", headers={"Authorization": f"Bearer {secret}"})
    address, _, login = asked.json()["url"].partition("#token=")
    assert address == f"{URL}/login"  # what follows # is sent to no server
    refusal(browser.get(ME, headers={"Authorization": f"Bearer {login}"}), 401, "unauthenticated")
    assert browser.post(SESSION, json={"token": login}).status_code == 201
    other = TestClient(app, base_url=URL, raise_server_exceptions=False)
    refusal(other.post(SESSION, json={"token": login}), 401, "unauthenticated")


def test_only_digests_of_secrets_are_kept(db, secret, logged_in):
    with db.reading() as connection:
        kept = connection.execute(select(tables.tokens.c.secret_sha256)).scalars().all()
        everything = repr([connection.execute(select(table)).all() for table in tables.metadata.sorted_tables])
    assert hashlib.sha256(secret.encode()).hexdigest() in kept
    assert secret not in everything
    assert logged_in.cookies[COOKIE] not in everything


def test_a_token_that_was_revoked_or_has_expired_is_worth_nothing_at_once(api_as, app, db):
    admin, now_s = api_as("admin"), time.time()
    with db.writing() as connection:
        row, secret = tokens.add(connection, name="b", scopes=["read"], now_s=now_s)
        short, short_secret = tokens.add(connection, name="c", scopes=["read"], now_s=now_s, expires_s=now_s + 3600)
    client = TestClient(app, base_url=URL, raise_server_exceptions=False)
    for each in (secret, short_secret):
        assert client.get(JOBS, headers={"Authorization": f"Bearer {each}"}).status_code == 200
    assert admin.delete(f"/api/v1/tokens/{row.token_id}").status_code == 204
    with db.writing() as connection:
        connection.execute(tables.tokens.update().where(tables.tokens.c.token_id == short.token_id).values(expires_s=1))
    for each in (secret, short_secret):
        refusal(client.get(JOBS, headers={"Authorization": f"Bearer {each}"}), 401, "unauthenticated")


def test_whoever_brings_many_wrong_tokens_is_not_listened_to_and_others_are(api, browser, secret):
    assert api.get(ME).status_code == 200
    for number in range(MAX_FAILURES):
        given = {"Authorization": f"Bearer rlhf_api_{number}"}
        refusal(browser.get(ME, headers=given), 401, "unauthenticated")
    answer = browser.get(ME, headers={"Authorization": "Bearer rlhf_api_more"})
    assert "come again in" in refusal(answer, 429, "too_many_failures")
    assert 0 < int(answer.headers["retry-after"]) <= 60
    refusal(browser.post(SESSION, json={"token": "more"}), 429, "too_many_failures")
    assert api.get(ME).status_code == 200  # known to be right, from the same address
    refusal(browser.get(ME), 401, "unauthenticated")  # without a token nothing was guessed


def test_a_stranger_locks_nobody_out_who_comes_by_the_same_address_also_not_for_the_first_time(app, browser, db):
    for number in range(MAX_FAILURES + 1):
        browser.get(ME, headers={"Authorization": f"Bearer rlhf_api_{number}"})
    now_s = time.time()
    with db.writing() as connection:
        _, new = tokens.add(connection, name="ada", scopes=["read"], now_s=now_s)
        _, login = tokens.add(connection, name="ada", scopes=["read"], now_s=now_s, kind=tokens.LOGIN)
    assert browser.get(ME, headers={"Authorization": f"Bearer {new}"}).status_code == 200
    assert browser.post(SESSION, json={"token": login}).status_code == 201
    refusal(browser.get(ME, headers={"Authorization": "Bearer rlhf_api_more"}), 429, "too_many_failures")


def test_every_change_is_in_the_audit_also_one_that_was_refused_or_failed(api_as, submit, db):
    admin, reader = api_as("admin"), api_as("read")
    job_id = submit()["job_id"]
    reader.post(f"{JOBS}/{job_id}/kill")
    admin.put(f"{JOBS}/{job_id}/pools/rollout", json={"replicas": 2}, headers={"If-Match": "*"})
    admin.patch(f"{JOBS}/{job_id}", json={"notes": "n"})
    admin.delete(f"{JOBS}/{job_id}")
    admin.post("/api/v1/tokens", json={"name": "n", "scopes": ["read"]})
    items = admin.get("/api/v1/audit").json()["items"]
    assert [(each["who"], each["method"], each["status"]) for each in reversed(items)] == [
        ("submit", "POST", 201),
        ("read", "POST", 403),
        ("admin", "PUT", 202),
        ("admin", "PATCH", 200),
        ("admin", "DELETE", 409),
        ("admin", "POST", 201),
    ]


def test_a_failure_of_the_service_says_nothing_of_its_inside_and_is_in_the_audit(api, api_as, app):
    @app.post("/api/v1/broken")
    def broken():
        raise ZeroDivisionError("the secret of the inside")

    app.router.routes.insert(0, app.router.routes.pop())
    answer = api.post("/api/v1/broken")
    assert "inside" not in refusal(answer, 500, "internal")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert api_as("admin").get("/api/v1/audit").json()["items"][0]["status"] == 500


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        ('headers = { Authorization = "Bearer s3cr3t" }', "rewards.0.headers.Authorization"),
        ('headers = { X-Key = "s3cr3t" }', "rewards.0.headers.X-Key"),
    ],
)
def test_a_job_that_holds_a_secret_is_refused_and_the_secret_is_nowhere(api, api_as, db, caplog, lines, where):
    source = f'name = "a"\n[[rewards]]\ntype = "remote"\nurl = "http://127.0.0.1:1/score"\n{lines}\n'
    detail = refusal(api.post(JOBS, json={"source": source}), 422, "invalid_job")
    assert where in detail
    assert "s3cr3t" not in detail
    assert "s3cr3t" not in caplog.text
    with db.reading() as connection:
        assert "s3cr3t" not in repr([connection.execute(select(each)).all() for each in tables.metadata.sorted_tables])


def test_a_token_that_is_revoked_takes_its_sessions_and_logins_with_it(app, api_as):
    admin = api_as("admin")
    made = admin.post("/api/v1/tokens", json={"name": "ada", "scopes": ["submit"]}).json()
    ada = {"Authorization": f"Bearer {made['secret']}"}
    link = admin.post("/api/v1/auth/login-links", headers=ada).json()["url"]
    page, other = (TestClient(app, base_url=URL) for _ in range(2))
    for browser, secret in ((page, made["secret"]), (other, link.partition("#token=")[2])):
        assert browser.post(SESSION, json={"token": secret}).status_code == 201
        assert browser.get(ME).json()["name"] == "ada"
    unused = admin.post("/api/v1/auth/login-links", headers=ada).json()["url"].partition("#token=")[2]
    listed = [token["name"] for token in admin.get("/api/v1/tokens").json()["items"]]
    assert listed.count("ada") == 1
    assert admin.delete(f"/api/v1/tokens/{made['token_id']}").status_code == 204
    assert page.get(ME).status_code == other.get(ME).status_code == 401
    assert TestClient(app, base_url=URL).post(SESSION, json={"token": unused}).status_code == 401


def test_a_plan_opens_no_path_of_the_clients(api, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    body = {"recipe": "word-world", "overrides": [f'model="{tmp_path}"']}
    lines = api.post("/api/v1/jobs/validate", json=body).json()["lines"]
    assert lines == [f"what it would reserve is known only on the cluster, where {tmp_path} is"]
