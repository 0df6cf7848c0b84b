"""Answers of every kind, from a server that gives them one after the other."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from rlhf_cluster.client import Access, Client
from rlhf_cluster.client.connection import ATTEMPTS, Connection, refusal
from rlhf_cluster.client.stream import follow
from rlhf_cluster.errors import BadRequest, ConfigError, NotAuthorized, NotOnService, ServiceAway, ServiceError
from rlhf_cluster.wire.access import CreateToken

SOON = {"Retry-After": "0"}
HANG_UP = (0, {}, "")


class Script(HTTPServer):
    """`answers` are status, headers and body; an answer of status 0 is none: the connection is closed."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[tuple[int, dict[str, str], str]] = []
        self.asked: list[tuple[str, str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Script

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.asked.append((self.command, self.path, dict(self.headers)))
        status, headers, body = self.server.answers.pop(0)
        if not status:
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())

    do_GET = do_POST = answer

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def script() -> Iterator[Script]:
    server = Script()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def connection(script: Script) -> Iterator[Connection]:
    connection = Connection(Access(url=script.url, token="t"))
    yield connection
    connection.close()


def test_a_request_carries_the_token_and_leaves_out_what_was_not_given(script, connection):
    script.answers = [(200, {}, "{}")]
    assert connection.get("/jobs", ref="a b", cursor=None) == b"{}"
    method, path, headers = script.asked[0]
    assert (method, path, headers["Authorization"]) == ("GET", "/api/v1/jobs?ref=a+b", "Bearer t")


@pytest.mark.parametrize("trouble", [(503, SOON, ""), (502, SOON, ""), HANG_UP])
def test_what_only_reads_is_asked_again_after_trouble_that_passes(script, connection, trouble):
    script.answers = [trouble, trouble, (200, {}, "ok")]
    assert connection.get("/jobs") == b"ok"


def test_it_is_not_asked_for_ever(script, connection):
    script.answers = [(503, SOON, "")] * ATTEMPTS
    with pytest.raises(ServiceAway) as caught:
        connection.get("/jobs")
    assert caught.value.status == 503


def test_what_changes_something_is_sent_once_unless_it_says_that_it_may_be_repeated(script, connection):
    script.answers = [HANG_UP]
    with pytest.raises(ServiceAway):
        connection.send("POST", "/tokens", body={})
    script.answers = [HANG_UP, (201, {}, "ok")]
    assert connection.send("POST", "/jobs", body={}, may_repeat=True).content == b"ok"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequest),
        (401, NotAuthorized),
        (403, NotAuthorized),
        (404, NotOnService),
        (409, ServiceError),
        (412, ServiceError),
        (422, BadRequest),
        (500, ServiceAway),
    ],
)
def test_a_problem_becomes_an_error_of_its_kind(status, kind):
    problem = {"detail": "so it is", "code": "some_code", "request_id": "req_1", "status": status}
    error = refusal(status, json.dumps(problem).encode(), url="http://h")
    assert (type(error), str(error)) == (kind, "so it is")
    assert (error.status, error.code, error.request_id) == (status, "some_code", "req_1")


@pytest.mark.parametrize("content", [b"<html>", b"[]", b'{"error": 1}', b"\xff"])
def test_an_answer_of_something_else_says_that_it_is_something_else(content):
    error = refusal(404, content, url="http://h")
    assert str(error) == "http://h answered 404, and not as this service does: is it the right address?"


def test_nobody_there_is_told_at_once_with_the_address(script):
    script.server_close()
    with pytest.raises(ServiceAway, match=f"{script.url} cannot be reached"):
        Connection(Access(url=script.url)).get("/jobs")


def test_a_token_may_end_with_a_new_line_as_files_and_secret_stores_do(script):
    script.answers = [(200, {}, "{}")]
    with closing(Connection(Access(url=script.url, token="t\n"))) as connection:
        connection.get("/jobs")
    assert script.asked[0][2]["Authorization"] == "Bearer t"


@pytest.mark.parametrize("token", ["s3cr3t\nof two lines", "s3cr3t…", "s3cr3t \x00"])
def test_a_token_that_cannot_be_sent_is_refused_and_not_shown(token):
    with pytest.raises(ConfigError) as caught:
        Connection(Access(url="http://127.0.0.1:9", token=token))
    assert "s3cr3t" not in str(caught.value)


def test_a_success_of_something_else_says_that_it_is_something_else(script):
    script.answers = [(200, {}, "<html>")] * 3
    with Client(Access(url=script.url)) as client:
        for ask in (
            client.me,
            lambda: client.find("@last"),
            lambda: client.create_token(CreateToken(name="a", scopes=["read"])),
        ):
            with pytest.raises(
                ServiceError, match="answered 200, and not as this service does: is it the right address"
            ):
                ask()


def test_a_stream_that_ends_before_it_has_told_anything_is_not_opened_for_ever(script, connection):
    script.answers = [(200, {}, "")] * 3
    with pytest.raises(ServiceAway, match="tells nothing"):
        next(follow(connection, job_id=None, topics=["jobs"], patience_s=0.1))
