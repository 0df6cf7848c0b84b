"""Jobs of a service by command line: submitted, found, listed, shown, ended and begun again."""

from __future__ import annotations

import io
import json
import tomllib
import zipfile

import pytest
import yaml

from rlhf_cluster.config.load import find
from rlhf_cluster.service.store import jobs


def json_of(answer):
    code, out, err = answer
    assert code == 0, err
    return json.loads(out)


def refused(answer, *, code):
    """The one sentence on stderr."""
    assert answer[0] == code, answer
    assert answer[1] == ""
    return answer[2]


def test_a_recipe_is_submitted_with_what_differs_from_it(rlhf, service):
    arguments = (
        "submit",
        "word-world",
        "train.num_steps=7",
        "--name",
        "mine",
        "--label",
        "team=search",
        "--notes",
        "n",
    )
    job = json_of(rlhf(*arguments, "--max-attempts", "2", "-o", "json"))
    assert (job["name"], job["state"], job["num_steps"], job["max_attempts"]) == ("mine", "queued", 7, 2)
    assert (job["labels"], job["notes"], job["owner"]) == ({"team": "search"}, "n", "submiter")


def test_who_submits_is_told_the_id_and_how_to_watch(rlhf, service):
    code, out, _ = rlhf("submit", "word-world", "--name", "told")
    newest = json_of(rlhf("show", "told", "-o", "json"))["job_id"]
    assert (code, out) == (0, f"submitted {newest} (told); `rlhf watch {newest}` shows it\n")


@pytest.mark.parametrize("ending", ["toml", "yaml"])
def test_a_job_file_is_submitted_as_its_text(rlhf, service, tmp_path, ending):
    text = find("word-world").read_text()
    path = tmp_path / f"job.{ending}"
    path.write_text(text if ending == "toml" else yaml.safe_dump(tomllib.loads(text)))
    job = json_of(rlhf("submit", str(path), "train.num_steps=9", "-o", "json"))
    assert (job["source"], job["num_steps"]) == (path.read_text(), 9)


def test_a_plan_is_shown_and_nothing_is_submitted(rlhf, service):
    before = len(json_of(rlhf("list", "--limit", "1000", "-o", "json")))
    code, out, _ = rlhf("submit", "word-world", "--dry-run")
    assert (code, bool(out.strip())) == (0, True)
    assert json_of(rlhf("submit", "word-world", "train.num_steps=9", "--dry-run", "-o", "json"))["changed"]
    assert len(json_of(rlhf("list", "--limit", "1000", "-o", "json"))) == before


def test_the_same_key_twice_is_one_job(rlhf, service):
    first = json_of(rlhf("submit", "word-world", "--idempotency-key", "k1", "-o", "json"))
    again = json_of(rlhf("submit", "word-world", "--idempotency-key", "k1", "-o", "json"))
    assert first["job_id"] == again["job_id"]
    other = rlhf("submit", "word-world", "train.num_steps=3", "--idempotency-key", "k1")
    assert "choose a new key" in refused(other, code=2)


def test_code_is_sent_once_without_the_history_of_its_repository(rlhf, service, tmp_path):
    code = tmp_path / "code"
    (code / ".git").mkdir(parents=True)
    (code / ".git" / "config").write_text("secret")
    (code / "package").mkdir()
    (code / "package" / "rewards.py").write_text("def one(sample):\n    return 1.0\n")
    ids = [json_of(rlhf("submit", "word-world", "--code", str(code), "-o", "json"))["job_id"] for _ in range(2)]
    with service.db.reading() as connection:
        bundles = [jobs.get(connection, job_id).bundle_sha256 for job_id in ids]
    assert bundles[0] == bundles[1]
    content = (service.data_dir / "uploads" / f"{bundles[0]}.zip").read_bytes()
    assert zipfile.ZipFile(io.BytesIO(content)).namelist() == ["package/rewards.py"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["no-such.toml"], 3, "no job file is called 'no-such.toml'"),
        (["word-wrld"], 3, "did you mean 'word-world'?"),
        (["word-world", "train.num_stps=3"], 2, "did you mean 'num_steps'?"),
        (["word-world", "--label", "search"], 2, "has to be KEY=VALUE"),
        (["word-world", "--name", ""], 2, "name: "),
        (["word-world", "--code", "no-such-dir"], 2, "no-such-dir"),
    ],
)
def test_what_cannot_be_submitted_is_said_in_one_message(rlhf, service, arguments, code, says):
    assert says in refused(rlhf("submit", *arguments), code=code)


def test_a_mistyped_name_is_answered_with_the_nearest_one(rlhf, service):
    service.submit("ablation-3")
    assert "there is no job 'ablatoin-3' (did you mean 'ablation-3'?)" in refused(rlhf("show", "ablatoin-3"), code=3)


def test_a_job_is_found_by_id_prefix_name_and_as_the_last_one(rlhf, service):
    job_id = service.submit("found")
    for ref in (job_id, job_id[:-2], "found", "@last"):
        assert json_of(rlhf("show", ref, "-o", "json"))["job_id"] == job_id
    assert "begins the ids of several jobs" in refused(rlhf("show", "job_"), code=3)
    assert "there is no job 'lost'" in refused(rlhf("show", "lost"), code=3)


def test_jobs_are_listed_newest_first_and_filtered(rlhf, service):
    older = service.submit("listed", labels={"sweep": "a"})
    newer = service.submit("listed", labels={"sweep": "b"})
    code, out, _ = rlhf("list", "--name", "listed")
    assert code == 0
    assert out.splitlines()[0].split() == ["job", "name", "state", "step", "owner", "submitted", "message"]
    assert [line.split()[0] for line in out.splitlines()[1:]] == [newer, older]
    ids = [job["job_id"] for job in json_of(rlhf("list", "--label", "sweep=a", "--mine", "-o", "json"))]
    assert ids == [older]
    lines = rlhf("list", "--name", "listed", "--state", "queued", "-o", "jsonl")[1].splitlines()
    assert [json.loads(line)["job_id"] for line in lines] == [newer, older]
    assert rlhf("list", "--owner", "nobody")[1] == "there is no such job\n"


def test_a_list_that_was_cut_says_so_where_it_spoils_no_output(rlhf, service):
    for _ in range(3):
        service.submit("many")
    code, out, err = rlhf("list", "--name", "many", "--limit", "2", "-o", "json")
    assert (code, len(json.loads(out))) == (0, 2)
    assert "--limit 10" in err


def test_a_job_is_shown_with_settings_attempts_pools_and_checkpoints(rlhf, service):
    job_id = service.run(service.submit("shown", "algorithm.kl_coef=0.25", labels={"team": "x"}))
    service.tell(job_id, [{"event": "CheckpointSaved", "time_s": 5.0, "step": 3, "path": "ck/step-000003"}])
    code, out, _ = rlhf("show", "shown")
    assert code == 0
    for part in ("shown (job_", "running, step 4 of 20, updating", "team=x", "algorithm.kl_coef", "0.25", "node-a"):
        assert part in out
    assert "ck/step-000003" in out
    data = json_of(rlhf("show", "shown", "-o", "json"))
    assert [pool["pool"] for pool in data["pools"]] == ["rollout", "reward", "reference", "learner"]
    assert (data["attempts"][0]["host"], data["checkpoints"][0]["step"]) == ("node-a", 3)


def test_the_status_of_a_job_is_what_its_driver_saw_last(rlhf, service):
    service.run(service.submit("seen"))
    code, out, _ = rlhf("status", "seen")
    assert code == 0
    for part in ("waits for   1 more group", "1 of 1", "no node has 1 CPU free", "rollout-7 died", "1.5 GiB"):
        assert part in out
    assert json_of(rlhf("status", "seen", "-o", "json"))["job"]["waiting_for"] == "1 more group"


def test_the_status_of_the_service_says_who_and_where(rlhf, service):
    service.submit("waiting")
    code, out, _ = rlhf("status")
    assert code == 0
    for part in (service.url, "RLHF_SERVER", "submiter", "waiting (job_", ", queued)"):
        assert part in out
    assert json_of(rlhf("status", "-o", "json"))["me"]["scopes"] == ["submit"]


def test_workers_are_listed_by_pool_with_the_reason_why_one_is_pending(rlhf, service):
    service.run(service.submit("workers"))
    code, out, _ = rlhf("workers", "workers")
    assert code == 0
    assert "rollout-1  pending" in out
    assert "no node has 1 CPU free; rollout-7 died" in out
    lines = [json.loads(line) for line in rlhf("workers", "workers", "-o", "jsonl")[1].splitlines()]
    assert [(line["worker_id"], line["pool"], line["lag"]) for line in lines] == [
        ("rollout-0", "rollout", 1),
        ("rollout-1", "rollout", 0),
        ("learner-0", "learner", 0),
    ]


@pytest.mark.parametrize(("verb", "wanted"), [("cancel", "cancel"), ("kill", "kill")])
def test_a_job_that_is_to_end_is_not_waited_for(rlhf, service, verb, wanted):
    job_id = service.run(service.submit(f"to-{verb}"))
    code, out, _ = rlhf(verb, f"to-{verb}")
    assert (code, f"`rlhf watch {job_id}` shows it" in out) == (0, True)
    with service.db.reading() as connection:
        assert jobs.get(connection, job_id).wanted == wanted
    assert json_of(rlhf(verb, f"to-{verb}", "-o", "json"))["job_id"] == job_id


def test_a_job_that_failed_is_tried_again_and_one_that_goes_on_is_not(rlhf, service):
    job_id = service.run(service.submit("failing"))
    assert "nothing to try again yet" in refused(rlhf("retry", "failing"), code=1)
    service.end(job_id, "failed", "out of memory")
    assert json_of(rlhf("retry", "failing", "-o", "json"))["state"] == "queued"


def test_a_clone_is_a_new_job_with_the_same_settings(rlhf, service):
    job_id = service.submit("original", "algorithm.kl_coef=0.25")
    clone = json_of(rlhf("clone", job_id, "-o", "json"))
    assert clone["job_id"] != job_id
    assert (clone["name"], clone["changed"]["algorithm.kl_coef"]) == ("original", 0.25)
    assert rlhf("clone", job_id)[1].startswith("submitted job_")


def test_words_of_others_cannot_steer_the_terminal(rlhf, service):
    service.submit("\x1b[31mred", notes="\x1b[2J")
    for arguments in (("list",), ("show", "@last"), ("status", "@last"), ("status",)):
        assert "\x1b" not in rlhf(*arguments)[1]


def test_verbs_of_a_service_refuse_a_job_directory_and_name_the_right_verb(rlhf, service, tmp_path):
    (tmp_path / "job.json").write_text("{}")
    for verb in ("cancel", "kill", "retry", "clone"):
        assert f"`rlhf stop {tmp_path}`" in refused(rlhf(verb, str(tmp_path)), code=2)
