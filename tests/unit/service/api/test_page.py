"""The page's files, and the page itself for every address that is none of the API's."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from rlhf_cluster.service import problems
from rlhf_cluster.service.api import page

INDEX = '<!doctype html><html><head><base href="/" /><script src="./assets/main-abc.js"></script></head></html>'


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A built page of three files, and something beside it that is nobody's business."""
    static = tmp_path / "static"
    (static / "assets").mkdir(parents=True)
    (static / "index.html").write_text(INDEX)
    (static / "assets" / "main-abc.js").write_text("run()")
    (static / "assets" / "main-abc.js.gz").write_bytes(gzip.compress(b"run()"))
    (static / "theme.js").write_text("dark()")
    (tmp_path / "secret.txt").write_text("nobody sees this")
    return static


def client_under(static: Path, root_path: str = "") -> TestClient:
    app = FastAPI(root_path=root_path, openapi_url=None)
    problems.install(app)

    @app.get("/api/v1/version")
    def version() -> dict[str, str]:
        return {"version": "1"}

    app.include_router(page.routes(static))
    return TestClient(app)


@pytest.fixture
def client(built: Path) -> Iterator[TestClient]:
    with client_under(built) as client:
        yield client


@pytest.mark.parametrize("path", ["/", "/jobs", "/jobs/job_1/workers", "/login", "/index.html", "/apiary"])
def test_every_address_of_the_page_gives_the_page(client, path):
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", ["/api/v1/nothing", "/api", "/metrics", "/healthz/more"])
def test_addresses_of_the_api_never_give_the_page(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_api_beside_the_page_is_reached(client):
    assert client.get("/api/v1/version").json() == {"version": "1"}


def test_hashed_files_are_kept_for_good_and_others_are_asked_for_again(client):
    assert "immutable" in client.get("/assets/main-abc.js").headers["cache-control"]
    assert client.get("/theme.js").headers["cache-control"] == "no-cache"


def test_packed_files_go_to_browsers_that_unpack(client):
    packed = client.get("/assets/main-abc.js", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    plain = client.get("/assets/main-abc.js", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert packed.text == plain.text == "run()"
    assert plain.headers["content-type"].startswith("text/javascript")


def test_a_file_of_an_older_build_is_not_answered_with_html(client):
    assert client.get("/assets/main-old.js").status_code == 404


@pytest.mark.parametrize("path", ["/../secret.txt", "/%2e%2e/secret.txt", "/assets/..%2f..%2fsecret.txt"])
def test_no_path_leads_out_of_the_folder(client, path):
    assert "nobody sees this" not in client.get(path).text


def test_the_page_is_told_where_a_proxy_has_put_it(built):
    with client_under(built, "/rlhf") as client:
        assert '<base href="/rlhf/" />' in client.get("/jobs").text


def test_a_path_of_a_proxy_cannot_end_the_attribute(built):
    with client_under(built, '/a"onload="x') as client:
        assert '"onload=' not in client.get("/jobs").text


def test_head_has_no_body(client):
    answer = client.head("/")
    assert answer.status_code == 200
    assert answer.content == b""


def test_without_a_built_page_a_plain_one_says_how_to_get_it(tmp_path):
    with client_under(tmp_path / "nowhere") as client:
        answer = client.get("/jobs")
    assert answer.status_code == 200
    assert "npm run build" in answer.text
    assert "rlhf list" in answer.text
