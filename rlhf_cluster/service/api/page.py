"""The page: its files, and `index.html` for every address that is none of the API's, since the page routes itself.

Names of built files hold a digest of their content, so browsers keep them for good. `index.html` says where the
service lies (`<base>`), which a proxy may have chosen.
"""

from __future__ import annotations

import html
import mimetypes
import re
from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.convertors import Convertor, register_url_convertor

from rlhf_cluster.service.problems import not_found

STATIC = Path(__file__).parents[1] / "static"
"""Written by the build of the package; not there where that was told to leave the page out."""
BASE = re.compile(r'<base href="[^"]*"\s*/?>')
HASHED = "assets/"
FOR_GOOD = "public, max-age=31536000, immutable"
NOT_BUILT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><base href="/">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>rlhf_cluster</title>
<style>body { font: 16px/1.6 system-ui, sans-serif; max-width: 42rem; margin: 12vh auto; padding: 0 1.5rem;
color-scheme: light dark } code { background: #8882; padding: 0 .3em; border-radius: 4px }</style></head>
<body><main><h1>The service runs; its page was not built</h1>
<p>Everything the page shows is also told by the command line: <code>rlhf list</code>, <code>rlhf watch JOB</code>,
<code>rlhf scale JOB rollout=4</code>. The API is under <code>api/v1</code>, described by
<a href="api/v1/openapi.json">openapi.json</a>.</p>
<p>To build the page, install the package without <code>RLHF_SKIP_PAGE=1</code>, or run <code>npm ci</code> and
<code>npm run build</code> in the folder <code>page</code> of a checkout.</p></main></body></html>
"""


class OfThePage(Convertor[str]):
    """Every path but those of the API and of whoever keeps the service alive."""

    regex = r"(?!(?:api|healthz|readyz|metrics)(?:/|$)).*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("of_the_page", OfThePage())


def routes(static: Path = STATIC) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.api_route("/{path:of_the_page}", methods=["GET", "HEAD"])
    def show_page(request: Request, path: str) -> Response:
        if path != "index.html" and path in _files(static):
            return _file(request, static / path, is_hashed=path.startswith(HASHED))
        if path.startswith(HASHED):
            raise not_found("file of the page", path)  # of an older build: a running page must not get HTML as code
        return _index(request, static / "index.html")

    return router


def _index(request: Request, path: Path) -> Response:
    text = path.read_text(encoding="utf-8") if path.is_file() else NOT_BUILT
    base = f"{request.scope.get('root_path', '').rstrip('/')}/"
    text = BASE.sub(lambda _: f'<base href="{html.escape(base)}" />', text, count=1)
    return Response(text, media_type="text/html", headers={"Cache-Control": "no-cache"})


def _files(static: Path) -> set[str]:
    """Only what is listed is served, so no path leads out of the folder."""
    return {path.relative_to(static).as_posix() for path in static.rglob("*") if path.is_file()}


def _file(request: Request, path: Path, *, is_hashed: bool) -> Response:
    """As it is, or packed as the build left it beside itself."""
    headers = {"Cache-Control": FOR_GOOD if is_hashed else "no-cache", "Vary": "Accept-Encoding"}
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    packed = path.with_name(f"{path.name}.gz")
    if packed.is_file() and "gzip" in request.headers.get("accept-encoding", ""):
        path, headers["Content-Encoding"] = packed, "gzip"
    return Response(path.read_bytes(), media_type=kind, headers=headers)
