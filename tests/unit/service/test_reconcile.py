"""The reconciler on a real database, against a server that answers as Ray's Jobs API was seen to answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from rlhf_cluster.service.ray_cluster import ClusterView
from rlhf_cluster.service.ray_jobs import ABSENT, RayAway, RayJobs, RayRefused
from rlhf_cluster.service.reconcile import Reconciler
from rlhf_cluster.service.settings import ServiceSettings
from rlhf_cluster.service.store import attempts, commands, events, jobs
from rlhf_cluster.service.store.database import Database
from rlhf_cluster.service.store.tokens import attempt_of_secret

TOKEN = "a1" * 32


class RayStandIn:
    """`away` closes the connection without an answer; `says` is what every submission is answered with instead."""

    def __init__(self) -> None:
        self.submissions: dict[str, dict[str, Any]] = {}
        self.statuses: dict[str, str] = {}
        self.num_submitted = 0
        self.num_asked = 0
        self.stopped: list[str] = []
        self.logs = ""
        self.away = False
        self.says: tuple[int, str] | None = None
        self.before_answer = lambda submission_id: None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, str]:
        self.num_asked += 1
        if method == "POST" and path == "/api/jobs/":
            return self._submit(body or {})
        if path == "/api/version":
            return 200, '{"version": "4", "ray_version": "2.60.0"}'
        if path.startswith("/api/v0/nodes"):
            return 200, json.dumps({"data": {"result": {"result": NODES}}})
        if path.startswith("/nodes"):
            return 200, json.dumps({"data": {"nodeLogicalResources": {"n1": USED}}})
        submission_id, _, verb = path.removeprefix("/api/jobs/").partition("/")
        if submission_id not in self.statuses:
            return 404, f"Job {submission_id} does not exist"
        if verb == "logs":
            return 200, json.dumps({"logs": self.logs})
        if verb == "stop":
            self.stopped.append(submission_id)
            return 200, json.dumps({"stopped": True})
        return 200, json.dumps({"submission_id": submission_id, "status": self.statuses[submission_id]})

    def _submit(self, body: dict[str, Any]) -> tuple[int, str]:
        self.num_submitted += 1
        submission_id = body["submission_id"]
        if self.says:
            return self.says
        if submission_id in self.statuses:
            words = f"ValueError: Job with submission_id {submission_id} already exists. Please use a different one."
            return 500, f"Traceback (most recent call last):\n  File ...\n{words}\n.\n"
        self.submissions[submission_id] = body
        self.statuses[submission_id] = "PENDING"
        self.before_answer(submission_id)
        return 200, json.dumps({"job_id": submission_id, "submission_id": submission_id})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        ray = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer("GET", None)

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers.get("content-length") or 0))
                self._answer("POST", json.loads(content) if content else None)

            def _answer(self, method: str, body: dict[str, Any] | None) -> None:
                if ray.away:
                    self.close_connection = True
                    return
                given = self.headers.get("authorization")
                status, words = (
                    ray.answer(method, self.path, body) if given == f"Bearer {TOKEN}" else (403, "Forbidden")
                )
                content = words.encode()
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


NODES = [
    {"node_id": "n1", "state": "ALIVE", "resources_total": {"CPU": 16.0, "my_kind": 2.0, "node:192.0.2.2": 1.0}},
    {"node_id": "n2", "state": "DEAD", "resources_total": {"CPU": 8.0}},
]
USED = "3.0/16.0 CPU\n1.00KiB/22.66GiB memory\n1.0/2.0 my_kind"


class Story:
    """A service without its HTTP side; time stands still unless it is moved."""

    def __init__(self, tmp_path: Path, ray: RayStandIn | None) -> None:
        self.ray = ray
        self.now_s = 1_000_000.0
        self.settings = ServiceSettings(data_dir=tmp_path, lease_s=45, launch_s=600, cancel_s=120)
        self.db = Database(self.settings.database_url)
        self.db.migrate()
        self.restart()

    def restart(self) -> None:
        client = RayJobs(self.ray.url, token=TOKEN) if self.ray else None
        self.reconciler = Reconciler(self.db, client, self.settings, clock=lambda: self.now_s)

    def submit(self, *, max_attempts: int = 3) -> str:
        with self.db.writing() as connection:
            row = jobs.add(
                connection,
                name="tiny",
                owner="me",
                labels={},
                notes="",
                source="",
                config={},
                num_steps=3,
                max_attempts=max_attempts,
                bundle_sha256=None,
                now_s=self.now_s,
            )
        return row.job_id

    def turn(self, *, after_s: float = 0.0) -> float:
        """Once a second, as it is done, up to `after_s`."""
        end_s = self.now_s + after_s
        while self.now_s + 5 < end_s:
            self.now_s += 5
            self.reconciler.turn()
        self.now_s = end_s
        return self.reconciler.turn()

    def job(self, job_id: str) -> Any:
        with self.db.reading() as connection:
            return jobs.get(connection, job_id)

    def attempts(self, job_id: str) -> list[Any]:
        with self.db.reading() as connection:
            return list(attempts.of_job(connection, job_id))

    def told(self, job_id: str) -> list[str]:
        with self.db.reading() as connection:
            return [row.kind for row in events.after(connection, 0, job_id=job_id)]

    def words(self, job_id: str) -> str:
        with self.db.reading() as connection:
            return "\n".join(row.text for row in events.after(connection, 0, job_id=job_id))

    def want(self, job_id: str, wanted: str) -> None:
        with self.db.writing() as connection:
            jobs.want(connection, job_id, wanted, now_s=self.now_s)

    def register(self, job_id: str, number: int) -> None:
        with self.db.writing() as connection:
            lease_s = self.now_s + self.settings.lease_s
            attempts.register(connection, job_id, number, host="h", process_id=1, lease_until_s=lease_s)
            jobs.set_state(connection, job_id, "running", message="", now_s=self.now_s)

    def end(self, job_id: str, number: int, outcome: str, *, may_be_retried: bool = True, message: str = "") -> None:
        with self.db.writing() as connection:
            attempts.end(
                connection,
                job_id,
                number,
                outcome=outcome,
                exit_code=0,
                message=message,
                may_be_retried=may_be_retried,
                now_s=self.now_s,
            )


@pytest.fixture
def ray() -> Iterator[RayStandIn]:
    stand_in = RayStandIn()
    yield stand_in
    stand_in.close()


@pytest.fixture
def story(tmp_path: Path, ray: RayStandIn) -> Story:
    return Story(tmp_path, ray)


def test_a_queued_job_is_submitted_once_under_an_id_of_its_own_with_a_secret_that_only_its_relay_has(story, ray):
    job_id = story.submit()
    story.turn()
    story.turn()
    assert ray.num_submitted == 1
    [(submission_id, body)] = ray.submissions.items()
    assert submission_id == f"{job_id}-1"
    assert body["entrypoint"].endswith("-m rlhf_cluster.relay")
    env = body["runtime_env"]["env_vars"]
    assert env["RLHF_SERVICE_URL"] == story.settings.url
    with story.db.reading() as connection:
        assert attempt_of_secret(connection, env["RLHF_ATTEMPT_TOKEN"]).job_id == job_id
    assert story.job(job_id).state == "launching"
    assert story.told(job_id) == ["AttemptSubmitted"]
    assert env["RLHF_ATTEMPT_TOKEN"] not in story.words(job_id)


def test_a_submission_whose_answer_was_lost_keeps_the_secret_that_its_relay_has(story, ray):
    job_id = story.submit()
    ray.says = (500, "the answer got lost")
    story.turn()
    ray.says = None
    [row] = story.attempts(job_id)
    assert row.state == "created"
    # What Ray has taken in nevertheless.
    ray.statuses[row.submission_id] = "RUNNING"
    story.restart()
    story.turn()
    [after] = story.attempts(job_id)
    assert (after.state, after.token_sha256) == ("submitted", row.token_sha256)


def test_a_submission_that_ray_takes_in_only_when_it_was_given_up_leaves_the_attempt_one_that_works(story, ray):
    job_id = story.submit()
    submit, late = ray._submit, []

    def slowly(body: dict[str, Any]) -> tuple[int, str]:
        late.append(body)
        if len(late) == 1:
            return 500, "No available agent to submit job, please try again later."
        submit(late[0])  # the first one is done just before the second one
        return submit(body)

    ray._submit = slowly
    story.turn()
    story.turn(after_s=5)
    [row] = story.attempts(job_id)
    assert row.state == "submitted"
    secret = ray.submissions[row.submission_id]["runtime_env"]["env_vars"]["RLHF_ATTEMPT_TOKEN"]
    with story.db.reading() as connection:
        assert attempt_of_secret(connection, secret) is not None


def test_submitting_what_ray_already_has_is_a_success(ray):
    client = RayJobs(ray.url, token=TOKEN)
    client.submit("job_a-1", "true", env={})
    client.submit("job_a-1", "true", env={})
    assert ray.num_submitted == 2


def test_a_relay_that_registers_before_ray_has_answered_is_not_called_launching(story, ray):
    job_id = story.submit()
    ray.before_answer = lambda _: story.register(job_id, 1)
    story.turn()
    assert story.job(job_id).state == "running"
    assert story.attempts(job_id)[0].state == "running"


def test_while_ray_is_away_a_job_waits_and_says_why_and_begins_when_ray_is_back(story, ray):
    job_id = story.submit()
    ray.away = True
    story.turn()
    assert "cannot be reached" in story.job(job_id).message
    story.turn(after_s=1000)
    assert story.job(job_id).state == "queued"
    ray.away = False
    story.turn(after_s=60)
    assert (story.job(job_id).state, story.job(job_id).message) == ("launching", "")
    assert len(story.attempts(job_id)) == 1


def test_ray_that_gave_no_answer_is_left_in_peace_for_a_while(story, ray):
    for _ in range(5):
        story.submit()
    ray.says = (500, "No available agent to submit job, please try again later.")
    story.turn()
    before = ray.num_submitted
    ray.away = True
    story.turn()
    story.turn()
    assert before == 5
    assert ray.num_submitted == before


def test_without_a_cluster_jobs_stay_queued_and_say_what_to_do(tmp_path):
    story = Story(tmp_path, None)
    job_id = story.submit()
    story.turn()
    assert "--ray-address" in story.job(job_id).message
    assert story.attempts(job_id) == []
    story.want(job_id, "cancel")
    story.turn()
    assert story.job(job_id).state == "cancelled"


def test_a_job_that_ray_refuses_has_failed_with_ray_s_words(story, ray):
    ray.says = (400, "Traceback ...\nTypeError: unexpected keyword argument 'x'\n")
    job_id = story.submit()
    story.turn()
    assert story.job(job_id).state == "failed"
    assert "unexpected keyword argument" in story.job(job_id).message


def test_a_job_whose_driver_reports_success_has_succeeded_whatever_ray_says(story, ray):
    job_id = story.submit()
    story.turn()
    story.register(job_id, 1)
    story.end(job_id, 1, "succeeded")
    ray.statuses[f"{job_id}-1"] = "FAILED"
    story.turn()
    assert story.job(job_id).state == "succeeded"
    assert story.told(job_id)[-1] == "JobOver"


def test_a_driver_that_falls_silent_is_given_up_stopped_at_ray_and_followed_by_another_attempt(story, ray):
    job_id = story.submit()
    story.turn()
    story.register(job_id, 1)
    story.turn(after_s=44)
    assert [row.state for row in story.attempts(job_id)] == ["running"]
    story.turn(after_s=2)
    assert [row.state for row in story.attempts(job_id)] == ["lost", "submitted"]
    assert ray.stopped == [f"{job_id}-1"]
    assert story.told(job_id) == ["AttemptSubmitted", "AttemptLost", "AttemptSubmitted"]


def test_a_stop_that_ray_did_not_hear_is_repeated_until_it_does(story, ray):
    job_id = story.submit()
    story.turn()
    story.register(job_id, 1)
    ray.away = True
    story.turn(after_s=50)
    assert story.attempts(job_id)[0].state == "lost"
    ray.away = False
    story.turn(after_s=60)
    assert ray.stopped == [f"{job_id}-1"]


def test_a_service_that_was_away_for_an_hour_gives_living_drivers_a_whole_lease_to_be_heard(story):
    job_id = story.submit()
    story.turn()
    story.register(job_id, 1)
    story.now_s += 3600
    story.turn()
    assert [row.state for row in story.attempts(job_id)] == ["running"]
    story.now_s += 3600
    story.restart()
    story.turn(after_s=44)
    assert [row.state for row in story.attempts(job_id)] == ["running"]
    story.turn(after_s=2)
    assert [row.state for row in story.attempts(job_id)] == ["lost", "submitted"]


def test_a_driver_that_never_registers_is_told_of_with_the_last_thing_it_wrote(story, ray):
    job_id = story.submit(max_attempts=1)
    story.turn()
    ray.logs = "starting\nModuleNotFoundError: No module named 'rlhf_cluster'\n\n"
    ray.statuses[f"{job_id}-1"] = "FAILED"
    story.turn()
    assert story.job(job_id).state == "failed"
    assert "No module named 'rlhf_cluster'" in story.job(job_id).message


@pytest.mark.parametrize("heard", ["it renews its lease", "it has succeeded"])
def test_a_driver_that_is_heard_while_ray_is_asked_about_its_silence_is_not_given_up(story, ray, heard):
    job_id = story.submit()
    story.turn()
    story.register(job_id, 1)
    answer = ray.answer

    def heard_meanwhile(method: str, path: str, body: Any) -> tuple[int, str]:
        if heard == "it has succeeded":
            story.end(job_id, 1, "succeeded")
        else:
            story.register(job_id, 1)
        return answer(method, path, body)

    ray.answer = heard_meanwhile
    story.turn(after_s=46)
    assert [row.state for row in story.attempts(job_id)] == ["ended" if heard == "it has succeeded" else "running"]
    assert "AttemptLost" not in story.told(job_id)
    assert ray.stopped == []


def test_a_submission_that_ray_forgot_with_its_head_is_begun_again(story, ray):
    job_id = story.submit()
    story.turn()
    ray.statuses.clear()
    story.turn()
    assert [row.state for row in story.attempts(job_id)] == ["lost", "submitted"]
    assert ABSENT in story.words(job_id)


def test_a_job_that_lost_its_cluster_goes_on_with_the_next_one_and_has_as_many_attempts_left(story, ray):
    job_id = story.submit(max_attempts=1)
    for number in (1, 2, 3):
        story.turn()
        story.register(job_id, number)
        ray.statuses.clear()  # another head, which knows nothing of it
        story.turn(after_s=50)
    assert [row.state for row in story.attempts(job_id)] == ["lost", "lost", "lost", "submitted"]
    assert [row.was_taken_away for row in story.attempts(job_id)] == [True, True, True, False]
    assert "does not count" in story.words(job_id)
    story.register(job_id, 4)
    story.end(job_id, 4, "failed", message="it did not learn")
    story.turn()
    assert story.job(job_id).state == "failed"


def test_a_failure_that_is_told_while_ray_is_away_is_that_of_the_cluster(story, ray):
    job_id = story.submit(max_attempts=1)
    story.turn()
    story.register(job_id, 1)
    ray.away = True
    story.end(job_id, 1, "failed", message="the cluster does not answer")
    story.turn()
    ray.away = False
    story.turn(after_s=40)
    assert [row.state for row in story.attempts(job_id)] == ["ended", "submitted"]


def test_an_attempt_that_was_interrupted_is_followed_by_another_and_does_not_count(story):
    job_id = story.submit(max_attempts=1)
    for number in (1, 2):
        story.turn()
        story.register(job_id, number)
        story.end(job_id, number, "interrupted")
    story.turn()
    assert [row.number for row in story.attempts(job_id)] == [1, 2, 3]


def test_a_reconciler_at_rest_begins_nothing_and_gives_nothing_up(story):
    waiting, silent = story.submit(), story.submit()
    story.turn()
    story.register(silent, 1)
    story.end(waiting, 1, "interrupted")
    story.reconciler.rest()
    story.turn(after_s=100)
    assert [len(story.attempts(job_id)) for job_id in (waiting, silent)] == [1, 1]
    assert story.attempts(silent)[0].state == "running"


def test_cancelling_asks_once_and_uses_force_only_when_time_is_up(story, ray):
    job_id = story.submit()
    story.turn()
    story.register(job_id, 1)
    story.want(job_id, "cancel")
    story.turn()
    story.turn()
    with story.db.reading() as connection:
        asked, _ = commands.of_job(connection, job_id, limit=10)
    assert [row.body for row in asked] == [{"command": "Stop"}]
    assert story.job(job_id).state == "stopping"
    assert ray.stopped == []
    for _ in range(5):
        story.now_s += 25
        with story.db.writing() as connection:
            attempts.renew(connection, job_id, 1, lease_until_s=story.now_s + 45)
        story.turn()
    assert ray.stopped == [f"{job_id}-1"]
    story.end(job_id, 1, "interrupted")
    story.turn()
    assert story.job(job_id).state == "cancelled"
    with story.db.reading() as connection:
        assert commands.get(connection, asked[0].command_id).state == "expired"


def test_killing_has_ray_stop_it_at_once_and_again_if_it_does_not(story, ray):
    job_id = story.submit()
    story.turn()
    story.register(job_id, 1)
    story.want(job_id, "kill")
    story.turn()
    story.turn()
    assert ray.stopped == [f"{job_id}-1"]
    story.turn(after_s=11)
    assert ray.stopped == [f"{job_id}-1"] * 2
    assert story.told(job_id).count("StopForced") == 1


def test_a_submission_that_ray_cannot_stop_keeps_no_other_from_being_stopped(story, ray):
    stuck, other = story.submit(), story.submit()
    story.turn()
    answer = ray.answer

    def answer_but_one(method: str, path: str, body: Any) -> tuple[int, str]:
        if path == f"/api/jobs/{stuck}-1/stop":
            return 500, "the agent of its node does not answer"
        return answer(method, path, body)

    ray.answer = answer_but_one
    for job_id in (stuck, other):
        story.register(job_id, 1)
        story.want(job_id, "kill")
    story.turn()
    assert ray.stopped == [f"{other}-1"]


def test_commands_that_nobody_obeyed_are_refused_when_the_job_ends(story):
    job_id = story.submit()
    story.turn()
    story.register(job_id, 1)
    with story.db.writing() as connection:
        row = commands.add(connection, job_id, {"command": "Pause"}, created_by="me", now_s=story.now_s)
    story.end(job_id, 1, "succeeded")
    story.turn()
    with story.db.reading() as connection:
        assert commands.get(connection, row.command_id).state == "refused"


def test_a_fault_of_the_job_itself_is_not_tried_again(story):
    job_id = story.submit()
    story.turn()
    story.register(job_id, 1)
    story.end(job_id, 1, "failed", may_be_retried=False, message="the model is none")
    story.turn()
    assert (story.job(job_id).state, story.job(job_id).message) == ("failed", "the model is none")


def test_one_damaged_job_keeps_no_other_from_being_run(story):
    damaged, whole = story.submit(), story.submit()
    with story.db.writing() as connection:
        connection.execute(text("UPDATE jobs SET labels = 'no json' WHERE job_id = :id"), {"id": damaged})
    story.turn()
    assert story.job(whole).state == "launching"


def test_a_database_that_fails_is_tried_again_ever_more_seldom_and_ends_nothing(story):
    story.submit()
    with story.db.writing() as connection:
        connection.execute(text("ALTER TABLE attempts RENAME TO elsewhere"))
    pauses = [story.turn() for _ in range(7)]
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    with story.db.writing() as connection:
        connection.execute(text("ALTER TABLE elsewhere RENAME TO attempts"))
    assert story.turn() == story.settings.reconcile_every_s


def test_a_wrong_token_is_named_as_such(ray):
    client = RayJobs(ray.url, token="wrong")
    assert client.status("job_a-1") is None
    with pytest.raises(RayAway, match="does not take our token"):
        client.submit("job_a-1", "true", env={})


def test_what_is_unknown_is_absent_and_what_is_unreachable_is_not(ray):
    client = RayJobs(ray.url, token=TOKEN)
    assert client.status("job_a-1") == ABSENT
    client.stop("job_a-1")
    ray.away = True
    assert client.status("job_a-1") is None
    assert client.last_lines("job_a-1") == []
    with pytest.raises(RayAway, match="cannot be reached"):
        client.stop("job_a-1")


def test_a_refusal_and_a_hindrance_are_told_apart(ray):
    client = RayJobs(ray.url, token=TOKEN)
    ray.says = (500, "No available agent to submit job, please try again later.")
    with pytest.raises(RayAway, match="No available agent"):
        client.submit("a", "true", env={})
    ray.says = (400, "TypeError: no")
    with pytest.raises(RayRefused, match="TypeError: no"):
        client.submit("a", "true", env={})


def test_the_cluster_is_shown_with_what_living_nodes_have_and_use(ray):
    shown = ClusterView(RayJobs(ray.url, token=TOKEN)).look()
    assert shown.is_reachable
    assert shown.total == {"CPU": 16.0, "my_kind": 2.0}
    assert shown.used == {"CPU": 3.0, "memory": 1024.0, "my_kind": 1.0}
    assert [node.state for node in shown.nodes] == ["ALIVE", "DEAD"]


def test_a_cluster_that_is_away_is_shown_with_the_reason_and_asked_no_more_often_for_it(ray):
    view = ClusterView(RayJobs(ray.url, token=TOKEN))
    ray.away = True
    assert "cannot be reached" in view.look().reason
    ray.away = False
    assert not view.look().is_reachable
    assert ray.num_asked == 0
    assert "--ray-address" in ClusterView(None).look().reason
