"""Bundles: kept under the SHA-256 of their content, for their owner alone, and refused where they could do harm."""

from __future__ import annotations

import asyncio
import hashlib
import io
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from .answers import BODY, JOBS, refusal

UPLOADS = "/api/v1/uploads"


def bundle(*members, method=zipfile.ZIP_DEFLATED):
    """`(name, content)` or `(name, content, mode)`."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as made:
        for name, data, *mode in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            info.external_attr = (mode[0] if mode else stat.S_IFREG | 0o644) << 16
            made.writestr(info, data)
    return content.getvalue()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def put(api):
    return lambda content, name=None: api.put(f"{UPLOADS}/{name or sha256(content)}", content=content)


@pytest.fixture
def kept(app):
    directory = Path(app.state.service.settings.data_dir, "uploads")
    return lambda: sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []


GOOD = bundle(("my_rewards/__init__.py", "def score(sample): ..."), ("my_rewards/", "", stat.S_IFDIR | 0o755))


def test_a_bundle_is_kept_for_its_owner_alone_and_jobs_can_name_it(app, api, put, kept):
    assert api.head(f"{UPLOADS}/{sha256(GOOD)}").status_code == 404
    for _ in range(2):
        answer = put(GOOD)
        assert (answer.status_code, answer.json()) == (201, {"sha256": sha256(GOOD), "num_bytes": len(GOOD)})
    assert api.head(f"{UPLOADS}/{sha256(GOOD)}").headers["upload-bytes"] == str(len(GOOD))
    assert kept() == [f"{sha256(GOOD)}.zip"]
    path = Path(app.state.service.settings.data_dir, "uploads", kept()[0])
    assert path.read_bytes() == GOOD
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)
    assert api.post(JOBS, json={**BODY, "bundle_sha256": sha256(GOOD)}).status_code == 201


def test_what_was_cut_off_on_its_way_is_not_kept(put, kept):
    assert "cut off" in refusal(put(GOOD[:-5], sha256(GOOD)), 422, "wrong_sha256")
    refusal(put(GOOD, "../../etc/passwd"), 404, "not_found")
    refusal(put(GOOD, "A" * 64), 422, "invalid_request")
    assert kept() == []


def test_more_bytes_than_allowed_are_refused_also_when_their_number_is_not_said(api, kept):
    pieces = (b"x" * 10_000 for _ in range(11))
    assert "100000 bytes" in refusal(api.put(f"{UPLOADS}/{'0' * 64}", content=pieces), 413, "too_large")
    assert kept() == []


def says_less(content):
    """The directory at the end of the zip says 1 byte of a member that has more."""
    at = content.rindex(b"PK\x01\x02")
    return content[: at + 24] + struct.pack("<I", 1) + content[at + 28 :]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no zip at all", "no zip file"),
        (b"", "no zip file"),
        (GOOD[:-30], "no zip file"),
        (GOOD.replace(b"PK\x03\x04", b"PK\x03\x05", 1), "no zip file"),
        (bundle(("/etc/passwd", "x")), "absolute path"),
        (bundle(("C:/windows", "x")), "absolute path"),
        (bundle(("a/../../b", "x")), "'..'"),
        (bundle(("..", "x")), "'..'"),
        (bundle(("a\\..\\b", "x")), "backslash"),
        (bundle(("a\nb", "x")), "control character"),
        (bundle(("n" * 2000, "x")), "too long"),
        (bundle(("link", "/etc/passwd", stat.S_IFLNK | 0o777)), "symbolic link or a device"),
        (bundle(("pipe", "", stat.S_IFIFO | 0o644)), "symbolic link or a device"),
        (bundle(("disk", "", stat.S_IFBLK | 0o644)), "symbolic link or a device"),
        (bundle(("A.py", ""), ("a.py", "")), "a name twice"),
        (bundle(("zeros", b"\0" * 300_000), ("more", b"\0" * 300_000)), "bytes unpacked"),
        (bundle(("a.py", "x"), method=zipfile.ZIP_LZMA), "deflate"),
        (says_less(bundle(("a.py", "x" * 100))), "bundle"),
    ],
)
def test_a_bundle_that_could_do_harm_is_refused(put, kept, content, words):
    assert words in refusal(put(content), 422, "unsafe_bundle")
    assert kept() == []


def test_only_who_may_submit_uploads(api, api_as, put):
    put(GOOD)
    url = f"{UPLOADS}/{sha256(GOOD)}"
    assert api_as("label").head(url).status_code == 403
    refusal(api_as("read").put(url, content=GOOD), 403, "forbidden")


def test_a_client_that_goes_away_in_the_middle_is_no_failure_of_the_service(api, app, caplog):
    told, sent = [], [{"type": "http.request", "body": b"PK", "more_body": True}, {"type": "http.disconnect"}]
    name = sha256(b"PK")

    async def receive():
        return sent.pop(0)

    async def send(message):
        told.append(message)

    headers = [(b"host", b"127.0.0.1:8420"), (b"authorization", api.headers["authorization"].encode())]
    scope = {"type": "http", "method": "PUT", "path": f"{UPLOADS}/{name}", "headers": headers, "query_string": b""}
    asyncio.run(
        app({**scope, "asgi": {"version": "3.0"}, "scheme": "http", "server": ("127.0.0.1", 8420)}, receive, send)
    )
    assert told[0]["status"] == 400
    assert "request failed" not in caplog.text
    assert [path.name for path in (app.state.service.settings.data_dir / "uploads").iterdir()] == []
