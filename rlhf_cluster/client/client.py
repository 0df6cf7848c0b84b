"""The service as an object: one method for each thing it can do, with the messages of `wire` in and out."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import ValidationError

from rlhf_cluster.client.access import Access, find_access
from rlhf_cluster.client.connection import Connection, unlike
from rlhf_cluster.client.light_httpx import httpx
from rlhf_cluster.client.stream import PATIENCE_S, StreamMessage, follow
from rlhf_cluster.errors import NotOnService
from rlhf_cluster.wire.access import Cluster, CreateToken, Me, NewToken, Token, Upload, Version
from rlhf_cluster.wire.base import Message, Page, Request
from rlhf_cluster.wire.figures import Checkpoint, Event, Latest, LogLine, Sample, SeriesSet
from rlhf_cluster.wire.jobs import Attempt, Checked, Command, Job, JobDetail, Pool, Recipe, SetPool, Submit, Worker
from rlhf_cluster.wire.labels import AddPairs, CreateLabelSet, Label, LabelSet, LabelStatistics, NewLabel, Turn

Kind = TypeVar("Kind", bound=Message)
PAGE = 200
"""Items of a page at most, as the service allows it."""


class Client:
    """Every method raises `ServiceError`: see `errors.py`. Close it, or use it in a `with` statement.

    `job_id` is a whole id; `find` gives the job that people mean by something shorter.
    """

    def __init__(self, access: Access) -> None:
        self._connection = Connection(access)

    @classmethod
    def connect(cls, server: str | None = None, token: str | None = None) -> Client:
        """What is left out comes from the environment, `rlhf login`, or `rlhf up` on this machine."""
        return cls(find_access(server, token))

    @property
    def access(self) -> Access:
        return self._connection.access

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def find(self, ref: str) -> Job:
        """By id, unique beginning of an id, name (its newest job), or `@last`."""
        return self._page(Job, "/jobs", ref=ref).items[0]

    def jobs(self, *, limit: int | None = None, **filters: Any) -> Iterator[Job]:
        """Newest first, and all of them without `limit`. Filters: `state` (one or several), `name`, `owner`, `label`,
        `q`."""
        return self._items(Job, "/jobs", limit=limit, **filters)

    def job(self, job_id: str) -> JobDetail:
        return self._get(JobDetail, _path(job_id))

    def submit(self, job: Submit, *, idempotency_key: str | None = None) -> JobDetail:
        """Sent again under the same key, it is the same job."""
        return self._post(JobDetail, "/jobs", body=job, key=idempotency_key)

    def check(self, job: Submit) -> Checked:
        """The whole config and the plan of a job that is not submitted."""
        return self._post(Checked, "/jobs/validate", body=job)

    def remove(self, job_id: str) -> None:
        self._connection.send("DELETE", _path(job_id))

    def cancel(self, job_id: str) -> Job:
        return self._post(Job, _path(job_id, "cancel"))

    def kill(self, job_id: str) -> Job:
        return self._post(Job, _path(job_id, "kill"))

    def retry(self, job_id: str) -> Job:
        return self._post(Job, _path(job_id, "retry"))

    def clone(self, job_id: str) -> JobDetail:
        return self._post(JobDetail, _path(job_id, "clone"))

    def pause(self, job_id: str) -> Command:
        return self._post(Command, _path(job_id, "pause"))

    def resume(self, job_id: str) -> Command:
        return self._post(Command, _path(job_id, "resume"))

    def checkpoint(self, job_id: str) -> Command:
        return self._post(Command, _path(job_id, "checkpoint"))

    def drain(self, job_id: str, worker_id: str) -> Command:
        return self._post(Command, _path(job_id, "workers", worker_id, "drain"))

    def restart(self, job_id: str, worker_id: str) -> Command:
        return self._post(Command, _path(job_id, "workers", worker_id, "restart"))

    def command(self, job_id: str, command_id: str) -> Command:
        return self._get(Command, _path(job_id, "commands", command_id))

    def commands(self, job_id: str, *, limit: int | None = None) -> Iterator[Command]:
        return self._items(Command, _path(job_id, "commands"), limit=limit)

    def attempts(self, job_id: str) -> list[Attempt]:
        return list(self._items(Attempt, _path(job_id, "attempts")))

    def pools(self, job_id: str) -> list[Pool]:
        return list(self._items(Pool, _path(job_id, "pools")))

    def set_pool(self, job_id: str, pool: str, wanted: SetPool, *, generation: int | None = None) -> Pool:
        """With the `generation` that was seen, somebody else's change since then is not overruled but told."""
        headers = {"If-Match": "*" if generation is None else f'"{generation}"'}
        path = _path(job_id, "pools", pool)
        answer = self._connection.send("PUT", path, body=_plain(wanted), headers=headers)
        return self._read(Pool, answer)

    def workers(self, job_id: str) -> list[Worker]:
        return list(self._items(Worker, _path(job_id, "workers")))

    def latest(self, job_id: str) -> Latest:
        return self._get(Latest, _path(job_id, "metrics"))

    def series(
        self, job_id: str, keys: Sequence[str], *, after_step: int | None = None, max_points: int | None = None
    ) -> SeriesSet:
        path = _path(job_id, "metrics", "series")
        return self._get(SeriesSet, path, key=list(keys), after_step=after_step, max_points=max_points)

    def samples(self, job_id: str, *, limit: int | None = None, **filters: Any) -> Iterator[Sample]:
        """Filters: `step`, `kind`, `min_reward`, `max_reward`, `q`, `request_id`, and `sort`."""
        return self._items(Sample, _path(job_id, "samples"), limit=limit, **filters)

    def logs(self, job_id: str, *, limit: int = PAGE, **filters: Any) -> list[LogLine]:
        """Oldest first. `after` a line, or the last `tail` ones; `component`, `q`."""
        return list(self._page(LogLine, _path(job_id, "logs"), limit=limit, **filters).items)

    def events(self, job_id: str, *, limit: int | None = None, **filters: Any) -> Iterator[Event]:
        """Newest first. Filters: `kind` (one or several) and `level` (that and worse)."""
        return self._items(Event, _path(job_id, "events"), limit=limit, **filters)

    def checkpoints(self, job_id: str) -> list[Checkpoint]:
        return list(self._items(Checkpoint, _path(job_id, "checkpoints")))

    def stream(
        self, *, job_id: str | None, topics: Iterable[str], patience_s: float = PATIENCE_S
    ) -> Iterator[StreamMessage]:
        """What happens from now on; see `stream.follow`."""
        return follow(self._connection, job_id=job_id, topics=topics, patience_s=patience_s)

    def upload(self, directory: Path) -> Upload:
        """A directory of code, sent only where the service does not have it yet."""
        from rlhf_cluster.client import bundle

        packed = bundle.pack(directory)
        path = f"/uploads/{packed.sha256}"
        try:
            self._connection.send("HEAD", path)
        except NotOnService:
            headers = {"Content-Type": "application/zip"}
            self._connection.send("PUT", path, content=packed.content, headers=headers, may_repeat=True)
        return Upload(sha256=packed.sha256, num_bytes=len(packed.content))

    def label_sets(self, *, limit: int | None = None) -> Iterator[LabelSet]:
        """Newest first."""
        return self._items(LabelSet, "/label-sets", limit=limit)

    def label_set(self, name: str) -> LabelSet:
        return self._get(LabelSet, _set_path(name))

    def create_label_set(self, label_set: CreateLabelSet) -> LabelSet:
        return self._post(LabelSet, "/label-sets", body=label_set)

    def add_pairs(self, name: str, pairs: AddPairs) -> LabelSet:
        return self._post(LabelSet, _set_path(name, "pairs"), body=pairs)

    def remove_label_set(self, name: str) -> None:
        """With all its labels."""
        self._connection.send("DELETE", _set_path(name))

    def next_to_label(self, name: str) -> Turn:
        """The pair that you have before you, the same one until you have said something of it."""
        return self._post(Turn, _set_path(name, "next"))

    def label(self, name: str, label: NewLabel) -> Label:
        return self._post(Label, _set_path(name, "labels"), body=label)

    def undo_label(self, name: str) -> Label:
        return self._post(Label, _set_path(name, "undo"))

    def label_statistics(self, name: str) -> LabelStatistics:
        return self._get(LabelStatistics, _set_path(name, "statistics"))

    def export_labels(self, name: str, *, min_labels: int | None = None) -> bytes:
        """JSON lines of `Judged`."""
        return self._connection.get(_set_path(name, "export.jsonl"), min_labels=min_labels)

    def recipes(self) -> list[Recipe]:
        return list(self._items(Recipe, "/recipes"))

    def cluster(self) -> Cluster:
        return self._get(Cluster, "/cluster")

    def version(self) -> Version:
        return self._get(Version, "/version")

    def me(self) -> Me:
        return self._get(Me, "/auth/me")

    def tokens(self) -> list[Token]:
        return list(self._items(Token, "/tokens"))

    def create_token(self, token: CreateToken) -> NewToken:
        answer = self._connection.send("POST", "/tokens", body=_plain(token))
        return self._read(NewToken, answer)

    def revoke_token(self, token_id: str) -> None:
        self._connection.send("DELETE", f"/tokens/{quote(token_id, safe='')}")

    def openapi(self) -> str:
        """The description of the API, as JSON."""
        return self._connection.get("/openapi.json").decode()

    def _get(self, kind: type[Kind], path: str, /, **query: Any) -> Kind:
        return self._read(kind, self._connection.send("GET", path, query=query))

    def _post(self, kind: type[Kind], path: str, *, body: Request | None = None, key: str | None = None) -> Kind:
        """Always under a key, so that it can be sent again when the answer was lost."""
        headers = {"Idempotency-Key": key or secrets.token_hex(16)}
        sent = None if body is None else _plain(body)
        answer = self._connection.send("POST", path, body=sent, headers=headers, may_repeat=True)
        return self._read(kind, answer)

    def _read(self, kind: type[Kind], answer: httpx.Response) -> Kind:
        """Raises `ServiceError` where something else than this service has answered, such as the page of a proxy."""
        try:
            return kind.model_validate_json(answer.content)
        except ValidationError as error:
            raise unlike(answer.status_code, url=self.access.url) from error

    def _page(self, kind: type[Kind], path: str, /, **query: Any) -> Page[Kind]:
        return self._get(Page[kind], path, **query)  # ty: ignore[invalid-type-form]

    def _items(self, kind: type[Kind], path: str, /, *, limit: int | None = None, **query: Any) -> Iterator[Kind]:
        """All items, page by page, or the first `limit`."""
        cursor: str | None = None
        while limit is None or limit > 0:
            wanted = None if limit is None else min(limit, PAGE)
            page = self._page(kind, path, limit=wanted, cursor=cursor, **query)
            yield from page.items
            cursor, limit = page.next_cursor, None if limit is None else limit - len(page.items)
            if cursor is None:
                return


def _plain(request: Request) -> dict[str, Any]:
    return request.model_dump(mode="json", exclude_none=True)


def _path(job_id: str, *parts: str) -> str:
    return "/".join(["/jobs", *(quote(part, safe="") for part in (job_id, *parts))])


def _set_path(name: str, *parts: str) -> str:
    return "/".join(["/label-sets", *(quote(part, safe="") for part in (name, *parts))])
