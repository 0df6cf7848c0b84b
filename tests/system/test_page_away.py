"""The page when its service dies under it, and the page behind a proxy that has put it under a path of its own."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .page_stage import browser, needs_page, person, seeded, wait_until

pytestmark = [needs_page, pytest.mark.slow]
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
AWAY = re.compile("The service is away")
CONF = """
daemon off; pid {home}/pid; error_log stderr warn; worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location /rlhf/ {{
      proxy_pass http://127.0.0.1:{behind}/;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Connection "";
      proxy_read_timeout 3600s;
    }}
  }}
}}
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as chromium:
        yield chromium


def points(page: Any) -> int:
    told = page.get_by_role("img", name=re.compile("^Reward over")).get_attribute("aria-label")
    return int(re.search(r"over (\d+) steps", told)[1])


def test_a_page_whose_service_is_killed_says_so_goes_on_by_itself_and_has_every_step_once(tmp_path, chromium):
    with (
        seeded(tmp_path / "service") as service,
        person(chromium, f"{service.url}/login#token={service.token}") as page,
    ):
        job = service.jobs["running"]
        page.goto(f"{service.url}/jobs/{job}/charts")
        before = points(page)
        wait_until(lambda: points(page) > before)
        service.kill()
        page.get_by_text(AWAY).wait_for()
        assert points(page) > before  # what it knew is still there
        service.start(port=service.port)
        page.get_by_text(AWAY).wait_for(state="detached")
        again = points(page)
        wait_until(lambda: points(page) > again + 1)
        stored = service.get(f"/jobs/{job}/metrics/series?key=reward/mean")["series"][0]["steps"]
        assert len(stored) == len(set(stored))
        assert 0 <= len(stored) - points(page) <= 3  # it has every step but what came while we looked


@contextmanager
def proxied(home: Path, behind: int) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (home / "nginx.conf").write_text(CONF.format(home=home, port=port, behind=behind))
    with subprocess.Popen([NGINX, "-p", home, "-c", home / "nginx.conf"]) as nginx:
        try:
            yield f"http://127.0.0.1:{port}/rlhf"
        finally:
            nginx.terminate()


@pytest.mark.skipif(NGINX is None, reason="there is no nginx")
def test_under_a_path_of_a_proxy_one_logs_in_sees_steps_arrive_and_loads_a_view_anew(tmp_path, chromium):
    with seeded(tmp_path / "service", root_path="/rlhf") as service, proxied(tmp_path, service.port) as url:
        wait_until(lambda: is_answered(url))
        with person(chromium, f"{url}/login#token={service.token}") as page:
            page.get_by_role("link", name="positive-reviews", exact=False).first.click()
            page.get_by_role("link", name="Charts").click()
            before = points(page)
            wait_until(lambda: points(page) >= before + 2)
            page.reload()
            assert points(page) >= before + 2
            assert page.url == f"{url}/jobs/{service.jobs['running']}/charts"
            cookie = next(each for each in page.context.cookies() if each["httpOnly"])
            assert cookie["path"] == "/rlhf"
            assert page.complaints == []


def is_answered(url: str) -> bool:
    import httpx

    try:
        return httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
