"""Requests to a service: sent with the token, sent again where that is safe, and every refusal turned into an error."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rlhf_cluster.client.access import Access, checked_token, is_loopback
from rlhf_cluster.client.light_httpx import httpx
from rlhf_cluster.errors import BadRequest, NotAuthorized, NotOnService, ServiceAway, ServiceError

PREFIX = "/api/v1"
TIMEOUT_S = 30.0
CONNECT_S = 5.0
ATTEMPTS = 3
"""Of a request that can be sent again: one that only reads, or one under an idempotency key."""
MAX_WAIT_S = 5.0
TEMPORARY = (502, 503, 504)
KINDS: dict[int, type[ServiceError]] = {
    400: BadRequest,
    401: NotAuthorized,
    403: NotAuthorized,
    404: NotOnService,
    413: BadRequest,
    415: BadRequest,
    422: BadRequest,
}
"""Status -> error. Any other below 500 is a refusal; from 500 on the service is away."""
Query = Mapping[str, Any]


class Connection:
    """Close it, or use it in a `with` statement."""

    def __init__(self, access: Access) -> None:
        """Raises `ConfigError` for a token that cannot be sent."""
        is_encrypted, token = access.url.startswith("https"), checked_token(access.token)
        self.access = access
        self._http = httpx.Client(
            base_url=access.url + PREFIX,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=httpx.Timeout(TIMEOUT_S, connect=CONNECT_S),
            # A proxy of the environment leads nowhere near this machine, and would be shown the token.
            trust_env=not is_loopback(access.url),
            verify=is_encrypted,  # loading the certificates takes as long as a request
        )

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, /, **query: Any) -> bytes:
        return self.send("GET", path, query=query).content

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        may_repeat: bool | None = None,
    ) -> httpx.Response:
        """The answer, a success. `path` is below `/api/v1`. Raises `ServiceError`."""
        sent: dict[str, Any] = {"params": _given(query or {}), "headers": dict(headers or {})}
        if body is not None:
            sent["json"] = body
        if content is not None:
            sent["content"] = content
        repeats = method in ("GET", "HEAD") if may_repeat is None else may_repeat
        for attempt in range(1, ATTEMPTS + 1):
            is_last = attempt == ATTEMPTS or not repeats
            try:
                answer = self._http.request(method, path, **sent)
            except httpx.ConnectError as error:
                raise self._away(error) from error  # nobody listens: asking again at once is no use
            except httpx.HTTPError as error:
                if is_last:
                    raise self._away(error) from error
                time.sleep(_wait_s(attempt))
                continue
            if answer.is_success:
                return answer
            if is_last or answer.status_code not in TEMPORARY:
                raise refusal(answer.status_code, answer.content, url=self.access.url)
            time.sleep(_wait_s(attempt, said=answer.headers.get("retry-after")))
        raise AssertionError("the last attempt returns or raises")

    @contextmanager
    def streaming(
        self, path: str, *, query: Query, headers: Mapping[str, str], read_s: float
    ) -> Generator[Iterator[str]]:
        """The lines of an answer that goes on. Raises `ServiceError`, also when nothing came for `read_s`."""
        timeout = httpx.Timeout(TIMEOUT_S, connect=CONNECT_S, read=read_s)
        try:
            with self._http.stream("GET", path, params=_given(query), headers=dict(headers), timeout=timeout) as answer:
                if not answer.is_success:
                    raise refusal(answer.status_code, answer.read(), url=self.access.url)
                yield answer.iter_lines()
        except httpx.HTTPError as error:
            raise self._away(error) from error

    def _away(self, error: httpx.HTTPError) -> ServiceAway:
        said = "it did not answer in time" if isinstance(error, httpx.TimeoutException) else str(error).strip()
        why = said or type(error).__name__
        hint = ""
        if isinstance(error, httpx.ConnectError):
            hint = ": `rlhf up` starts one on this machine, --server or RLHF_SERVER names another"
        return ServiceAway(f"the service at {self.access.url} cannot be reached ({why}){hint}", code="unreachable")


def refusal(status: int, content: bytes, *, url: str) -> ServiceError:
    """What an answer that is no success says, whoever gave it: the service itself, or a proxy before it."""
    try:
        problem = json.loads(content)
        detail, code = str(problem["detail"]), str(problem.get("code", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return unlike(status, url=url)
    return _kind(status)(detail, status=status, code=code, request_id=str(problem.get("request_id", "")))


def unlike(status: int, *, url: str) -> ServiceError:
    said = f"{url} answered {status}, and not as this service does: is it the right address?"
    return _kind(status)(said, status=status)


def _kind(status: int) -> type[ServiceError]:
    return KINDS.get(status, ServiceError if status < 500 else ServiceAway)


def _given(query: Query) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}


def _wait_s(attempt: int, *, said: str | None = None) -> float:
    """Longer each time, and not the same for all who wait; the service may say how long."""
    if said is not None and said.isdigit():
        return min(float(said), MAX_WAIT_S)
    return min(0.2 * 2**attempt, MAX_WAIT_S) * random.uniform(0.5, 1.0)
