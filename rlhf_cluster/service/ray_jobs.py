"""Ray's Jobs REST API, as much of it as jobs need: submit, ask, stop, read the end of a log.

No connection of a Ray driver is held: such a process is ended by Ray a minute after the cluster has gone away.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx

from rlhf_cluster.errors import RlhfError
from rlhf_cluster.flow.attempts import ABSENT

ASK_S = 5.0
SUBMIT_S = 30.0
"""Ray waits ten seconds for its own agent, and the first submission to a cluster starts one."""
STOP_WAIT_S = 30
"""Ray kills what it has asked to stop after so long; its own three seconds are too short for a checkpoint."""
OURS = "rlhf_job"
"""In the metadata of a service's submissions: the job's id."""
MAX_LOG_BYTES = 4 * 2**20
"""Ray gives a log as a whole or not at all."""


class RayAway(RlhfError):
    """Ray cannot be reached, or cannot do this now: try again later."""


class RayRefused(RlhfError):
    """Ray has answered, and would answer the same again."""


class RayJobs:
    """Threads may use one at once."""

    def __init__(self, url: str, *, token: str | None = None) -> None:
        """`url` is that of Ray's dashboard, with or without `http://`."""
        self.url = (url if "://" in url else f"http://{url}").rstrip("/")
        self.trouble = ""
        """Why the last call got no answer, in words; empty where it got one."""
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=ASK_S,
            trust_env=False,  # a proxy of the user's is not for the cluster
        )

    def submit(
        self,
        submission_id: str,
        entrypoint: str,
        *,
        env: Mapping[str, str],
        metadata: Mapping[str, str] | None = None,
        num_cpus: float = 0.0,
    ) -> None:
        """Submitting it again changes nothing. Raises `RayAway` and `RayRefused`.

        With `num_cpus = 0` Ray runs the entrypoint on its head, else on any node that has so many.
        """
        body: dict[str, Any] = {
            "entrypoint": entrypoint,
            "submission_id": submission_id,
            "runtime_env": {"env_vars": {**env, "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)}},
            "metadata": dict(metadata or {}),
        }
        if num_cpus:
            body["entrypoint_num_cpus"] = num_cpus
        answer = self._call("POST", "/api/jobs/", json=body, timeout=SUBMIT_S)
        # Ray says so with status 500 and a traceback.
        if answer.is_success or f"submission_id {submission_id} already exists" in answer.text:
            return
        raise self._why(answer)

    def status(self, submission_id: str) -> str | None:
        """PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED, or `ABSENT` where Ray does not know it; None where Ray cannot
        be asked now."""
        try:
            answer = self._call("GET", f"/api/jobs/{submission_id}")
        except RayAway:
            return None
        if answer.status_code == 404:
            return ABSENT
        status = _field(answer, "status")
        return status if isinstance(status, str) else None

    def unfinished(self) -> list[str]:
        """Submissions of a service that have not ended. Raises `RayAway`."""
        answer = self.get("/api/jobs/")
        return [
            job["submission_id"]
            for job in (answer if isinstance(answer, list) else [])
            if OURS in (job.get("metadata") or {}) and job.get("status") in ("PENDING", "RUNNING")
        ]

    def stop(self, submission_id: str) -> None:
        """SIGTERM for its processes, and SIGKILL after `STOP_WAIT_S`; nothing where there is none. Raises `RayAway`."""
        answer = self._call("POST", f"/api/jobs/{submission_id}/stop")
        if not answer.is_success and answer.status_code != 404:
            raise RayAway(f"Ray did not stop {submission_id}: {_last_line(answer.text)}")

    def last_lines(self, submission_id: str, *, num_lines: int = 20) -> list[str]:
        """The end of what its entrypoint wrote; nothing where Ray does not say, or has more than is worth reading."""
        try:
            with self._http.stream("GET", f"/api/jobs/{submission_id}/logs") as answer:
                content = b""
                for part in answer.iter_bytes():
                    content += part
                    if len(content) > MAX_LOG_BYTES:
                        return []
            logs = json.loads(content).get("logs") if answer.is_success else ""
        except (httpx.HTTPError, ValueError, AttributeError):
            return []
        lines = logs.splitlines() if isinstance(logs, str) else []
        return [line for line in lines if line.strip()][-num_lines:]

    def get(self, path: str) -> Any:
        """The JSON of an answer of Ray's dashboard. Raises `RayAway`."""
        answer = self._call("GET", path)
        if not answer.is_success:
            raise self._why(answer)
        try:
            return answer.json()
        except ValueError as error:
            raise RayAway(f"{self.url}{path} answers no JSON: is it Ray's dashboard?") from error

    def close(self) -> None:
        self._http.close()

    def _call(self, method: str, path: str, **more: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **more)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self.trouble = f"Ray at {self.url} cannot be reached: {error or type(error).__name__}"
            raise RayAway(self.trouble) from error
        if answer.status_code in (401, 403):
            self.trouble = f"Ray at {self.url} does not take our token: set RAY_AUTH_TOKEN to the cluster's"
            raise RayAway(self.trouble)
        self.trouble = ""
        return answer

    def _why(self, answer: httpx.Response) -> RayAway | RayRefused:
        text = f"Ray at {self.url} answers {answer.status_code}: {_last_line(answer.text)}"
        # Whatever else it answers 500 to passes: an agent that has not started, a head that is just coming up.
        return RayRefused(text) if 400 <= answer.status_code < 500 else RayAway(text)


def _field(answer: httpx.Response, name: str) -> Any:
    try:
        data = answer.json() if answer.is_success else None
    except ValueError:
        return None
    return data.get(name) if isinstance(data, dict) else None


def _last_line(text: str) -> str:
    """Of a traceback the error."""
    lines = [line.strip() for line in text.splitlines() if line.strip(" .")]
    return lines[-1][:500] if lines else "nothing"
