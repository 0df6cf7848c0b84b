"""Jobs over the API: submitted once, shown with what differs from the defaults, found, changed and removed."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from rlhf_cluster.config import load_job

from .answers import BODY, JOBS, refusal


def num_jobs(api):
    return len(api.get(JOBS).json()["items"])


def test_a_recipe_is_submitted_as_rlhf_run_would_read_it(api):
    answer = api.post(JOBS, json={**BODY, "name": "mine", "labels": {"team": "a"}, "notes": "first", "max_attempts": 2})
    assert answer.status_code == 201
    job = answer.json()
    assert answer.headers["location"] == f"{JOBS}/{job['job_id']}"
    assert job["config"] == json.loads(load_job("word-world", ["train.num_steps=3"]).model_dump_json())
    assert job["source"].startswith("# GRPO on the generated")
    assert (job["name"], job["owner"], job["state"], job["num_steps"]) == ("mine", "submit", "queued", 3)
    assert (job["labels"], job["notes"], job["max_attempts"], job["num_attempts"]) == ({"team": "a"}, "first", 2, 0)
    assert job["changed"]["train.num_steps"] == 3
    assert "train.max_staleness" not in job["changed"]
    assert api.get(answer.headers["location"]).json() == job


def test_a_job_file_of_ones_own_can_be_toml_or_yaml(api):
    source = api.post(JOBS, json=BODY).json()["source"]
    config = api.post(JOBS, json={"source": source}).json()["config"]
    sent = api.post(JOBS, json={"source": yaml.safe_dump(config), "format": "yaml"})
    assert (sent.status_code, sent.json()["config"], sent.json()["name"]) == (201, config, "word-world")


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ({}, "invalid_request", "give either recipe or source"),
        ({"recipe": "word-world", "colour": "red"}, "invalid_request", "colour"),
        ({"recipe": "word-word"}, "invalid_job", "did you mean 'word-world'"),
        ({"recipe": "/etc/passwd"}, "invalid_job", "does not exist"),
        ({"recipe": "word-world", "overrides": ["train.num_stepz=1"]}, "invalid_job", "did you mean 'num_steps'"),
        ({"recipe": "word-world", "overrides": ["nonsense"]}, "invalid_job", "key=value"),
        ({"recipe": "word-world", "overrides": ["train.num_steps=" + "9" * 5000]}, "invalid_job", "train.num_steps"),
        ({"recipe": "word-world", "overrides": ["rewards.²=1"]}, "invalid_job", "no index"),
        ({"recipe": "word-world", "overrides": ["seed=" + "[" * 5000]}, "invalid_job", "seed"),
        ({"recipe": "word-world", "overrides": [f"train.num_steps={2**31}"]}, "invalid_job", "2147483647"),
        ({"source": "a = ["}, "invalid_job", "not readable as TOML"),
        ({"source": "a: [", "format": "yaml"}, "invalid_job", "not readable as YAML"),
        ({"source": "a: &a [*a]", "format": "yaml"}, "invalid_job", "not readable as YAML"),
        ({"source": "- 1", "format": "yaml"}, "invalid_job", "holds list"),
        ({"recipe": "word-world", "bundle_sha256": "0" * 64}, "unknown_upload", "PUT it to /uploads/000"),
        ({"recipe": "word-world", "name": ""}, "invalid_request", "name"),
    ],
)
def test_what_is_wrong_is_refused_with_the_value_and_what_to_change(api, body, code, words):
    assert words in refusal(api.post(JOBS, json=body), 422, code)
    assert num_jobs(api) == 0


def test_a_short_yaml_file_that_means_an_endless_one_is_refused_at_once(api):
    lines = ["a0: &a0 {k: v}"] + [f"a{n + 1}: &a{n + 1} {{x: *a{n}, y: *a{n}}}" for n in range(3000)]
    assert "aliases" in refusal(
        api.post(JOBS, json={"source": "\n".join(lines[:60]), "format": "yaml"}), 422, "invalid_job"
    )
    merged = ["a0: &a0 {k: v}"] + [f"a{n + 1}: &a{n + 1} {{<<: [*a{n}, *a{n}]}}" for n in range(60)]
    assert "aliases" in refusal(
        api.post(JOBS, json={"source": "\n".join(merged), "format": "yaml"}), 422, "invalid_job"
    )


def test_an_algorithm_of_ones_own_is_taken_without_importing_it(api, tmp_path, monkeypatch):
    (tmp_path / "sets_a_trap.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    own = ['algorithm={type = "sets_a_trap:Algorithm", strength = 2}']
    answer = api.post(JOBS, json={**BODY, "overrides": own})
    assert answer.status_code == 201, answer.text
    assert answer.json()["config"]["algorithm"] == {"type": "sets_a_trap:Algorithm", "strength": 2}
    refusal(api.post(JOBS, json={**BODY, "overrides": [*own, "seed=-1"]}), 422, "invalid_job")


HTTP_REWARD = """[{type = "http", url = "https://%s/score", headers = {%s}}]"""


@pytest.mark.parametrize(
    "reward",
    [
        HTTP_REWARD % ("host", 'Authorization = "Bearer s3cret"'),
        HTTP_REWARD % ("user:s3cret@host", ""),
        '[{function = "my_rewards:judge", args = {api_key = "s3cret"}}]',
    ],
)
def test_a_job_file_with_a_secret_in_it_is_refused_without_repeating_it(api, reward):
    answer = api.post(JOBS, json={**BODY, "overrides": [f"rewards={reward}"]})
    assert "rewards.0" in refusal(answer, 422, "invalid_job")
    assert "s3cret" not in answer.text
    hidden = api.post(JOBS, json={"source": f"rewards = {reward}\n", "overrides": ["rewards=[]"]})
    assert "s3cret" not in hidden.text


def test_a_secret_that_is_named_is_no_secret(api):
    reward = HTTP_REWARD % ("host", 'Authorization = "env:JUDGE_TOKEN", Accept = "text/plain"')
    assert api.post(JOBS, json={**BODY, "overrides": [f"rewards={reward}"]}).status_code == 201


def test_the_same_idempotency_key_twice_is_one_job(api):
    first = api.post(JOBS, json=BODY, headers={"Idempotency-Key": "k1"})
    again = api.post(JOBS, json=BODY, headers={"Idempotency-Key": "k1"})
    assert (first.status_code, again.status_code, num_jobs(api)) == (201, 201, 1)
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["etag"] == first.headers["etag"]
    assert (first.headers.get("idempotency-replayed"), again.headers["idempotency-replayed"]) == (None, "true")


def test_another_request_under_the_same_key_is_refused(api):
    api.post(JOBS, json=BODY, headers={"Idempotency-Key": "k1"})
    other = api.post(JOBS, json={**BODY, "name": "other"}, headers={"Idempotency-Key": "k1"})
    assert "choose a new key" in refusal(other, 422, "idempotency_key_reused")
    assert num_jobs(api) == 1


def test_a_request_that_was_refused_can_be_sent_again_under_its_key(api):
    bundle = {**BODY, "bundle_sha256": "0" * 64}
    refusal(api.post(JOBS, json=bundle, headers={"Idempotency-Key": "k1"}), 422, "unknown_upload")
    assert api.post(JOBS, json=BODY, headers={"Idempotency-Key": "k1"}).status_code == 201


def test_keys_of_two_people_are_two_keys(api, api_as):
    api.post(JOBS, json=BODY, headers={"Idempotency-Key": "k1"})
    api_as("admin").post(JOBS, json=BODY, headers={"Idempotency-Key": "k1"})
    assert num_jobs(api) == 2


def test_the_same_key_from_many_threads_at_once_is_one_job(api):
    at_once = threading.Barrier(8)

    def post(_):
        at_once.wait(30)
        return api.post(JOBS, json=BODY, headers={"Idempotency-Key": "k1"})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, range(8)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["job_id"] for answer in answers}) == 1
    assert num_jobs(api) == 1


def test_validating_gives_config_and_plan_and_makes_no_job(api, word_world_home, monkeypatch):
    monkeypatch.setenv("RLHF_CLUSTER_HOME", str(word_world_home))
    answer = api.post(f"{JOBS}/validate", json=BODY)
    assert answer.status_code == 200
    assert answer.json()["changed"]["train.num_steps"] == 3
    assert "3 steps" in answer.json()["lines"][0]
    assert num_jobs(api) == 0


def test_a_model_that_is_only_on_the_cluster_makes_a_job_no_less_valid(api):
    answer = api.post(f"{JOBS}/validate", json={**BODY, "overrides": ["model=/only/on/the/cluster"]})
    assert answer.status_code == 200
    assert "known only on the cluster" in answer.json()["lines"][0]
    refusal(api.post(f"{JOBS}/validate", json={"recipe": "none"}), 422, "invalid_job")


def test_the_list_is_newest_first_and_goes_on_by_cursor(api, submit):
    ids = [submit(name=f"job-{n}")["job_id"] for n in range(5)]
    first = api.get(JOBS, params={"limit": 2}).json()
    submit(name="came-meanwhile")
    rest = api.get(JOBS, params={"limit": 10, "cursor": first["next_cursor"]}).json()
    assert [job["job_id"] for job in first["items"] + rest["items"]] == ids[::-1]
    assert rest["next_cursor"] is None
    assert "next_cursor" in refusal(api.get(JOBS, params={"cursor": "nonsense"}), 422, "invalid_cursor")
    refusal(api.get(JOBS, params={"limit": 201}), 422, "invalid_request")


def test_the_list_is_narrowed_by_state_name_label_and_words(api, submit, end):
    one, two = submit(name="one", labels={"team": "a"}), submit(name="two", notes="about needles")
    end(two["job_id"])

    def found(**params):
        return [job["name"] for job in api.get(JOBS, params=params).json()["items"]]

    assert found(state="failed") == ["two"]
    assert found(state=["failed", "queued"]) == ["two", "one"]
    assert (found(name="one"), found(label="team=a"), found(q="needle"), found(owner="nobody")) == (
        ["one"],
        ["one"],
        ["two"],
        [],
    )
    refusal(api.get(JOBS, params={"state": "asleep"}), 422, "invalid_request")
    assert one["state"] == "queued"


def test_a_job_is_found_by_what_people_call_it_but_shown_by_its_id_alone(api, submit):
    refusal(api.get(JOBS, params={"ref": "@last"}), 404, "not_found")
    old, new = submit(name="mine"), submit(name="mine")

    def found(ref):
        return [job["job_id"] for job in api.get(JOBS, params={"ref": ref}).json()["items"]]

    assert found("@last") == found("mine") == found(new["job_id"]) == [new["job_id"]]
    assert found(old["job_id"]) == [old["job_id"]]
    assert "several jobs" in refusal(api.get(JOBS, params={"ref": "job_"}), 404, "not_found")
    assert "'mine'" in refusal(api.get(f"{JOBS}/mine"), 404, "not_found")


def test_a_client_that_has_the_newest_state_gets_304_until_anything_changes(api, submit, saw, busy_view):
    job = submit()
    url = f"{JOBS}/{job['job_id']}"
    etag = api.get(url).headers["etag"]
    unchanged = api.get(url, headers={"If-None-Match": f'"other", W/{etag}'})
    assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", etag)
    saw(job["job_id"], busy_view)
    changed = api.get(url, headers={"If-None-Match": etag})
    assert (changed.status_code, changed.json()["step"]) == (200, 2)
    assert (changed.json()["bottleneck"], changed.json()["phase"]) == ("the learner waits for rollouts", "training")


def test_a_change_of_people_is_refused_after_another_one_but_not_after_progress(api, submit, saw, busy_view):
    job = submit(notes="old")
    url, etag = f"{JOBS}/{job['job_id']}", api.get(f"{JOBS}/{job['job_id']}").headers["etag"]
    saw(job["job_id"], busy_view)
    changed = api.patch(url, json={"notes": "new"}, headers={"If-Match": etag})
    assert (changed.status_code, changed.json()["notes"], changed.json()["name"]) == (200, "new", "word-world")
    late = api.patch(url, json={"notes": "mine"}, headers={"If-Match": etag})
    assert "read it again" in refusal(late, 412, "changed_meanwhile")
    assert api.patch(url, json={"name": "n"}, headers={"If-Match": changed.headers["etag"]}).json()["name"] == "n"
    assert api.patch(url, json={"labels": {}}).status_code == 200
    assert api.patch(url, json={}).status_code == 200
    refusal(api.patch(url, json={"state": "succeeded"}), 422, "invalid_request")
    refusal(api.patch(f"{JOBS}/job_none", json={}), 404, "not_found")


def test_only_a_job_that_is_over_can_be_removed(api, submit, end):
    job = submit()
    url = f"{JOBS}/{job['job_id']}"
    assert "cancel it first" in refusal(api.delete(url), 409, "job_is_not_over")
    end(job["job_id"])
    refusal(api.delete(url, headers={"If-Match": '"7.00"'}), 412, "changed_meanwhile")
    assert api.delete(url, headers={"If-Match": "*"}).status_code == 204
    refusal(api.delete(url), 404, "not_found")


def test_who_may_only_read_or_label_submits_and_changes_nothing(api, api_as, submit):
    url = f"{JOBS}/{submit()['job_id']}"
    for scope in ("read", "label"):
        reader = api_as(scope)
        assert reader.get(url).status_code == reader.get(JOBS).status_code == 200
        for refused in (
            reader.post(JOBS, json=BODY),
            reader.post(f"{JOBS}/validate", json=BODY),
            reader.patch(url, json={}),
            reader.delete(url),
        ):
            assert "needs the scope 'submit'" in refusal(refused, 403, "forbidden")
    assert num_jobs(api) == 1


def test_nobody_gets_in_without_a_token(api, submit):
    url = f"{JOBS}/{submit()['job_id']}"
    for method, path in (("GET", JOBS), ("POST", JOBS), ("GET", url), ("DELETE", url)):
        refusal(api.request(method, path, headers={"Authorization": ""}, json=BODY), 401, "unauthenticated")


def test_an_answer_that_others_had_before_is_as_good_as_new(api_as, api, submit, caplog):
    """It says who asked, has a tag, and is not told any more when the job has changed."""
    caplog.set_level("INFO", logger="rlhf_cluster.service.requests")
    job_id, other = submit()["job_id"], api_as("label")
    paths = [f"{JOBS}/{job_id}{part}" for part in ("", "/pools", "/metrics", "/events", "/workers", "/attempts")]
    first = [api.get(path) for path in paths]
    caplog.clear()
    again = [other.get(path) for path in paths]
    assert [each.content for each in again] == [each.content for each in first]
    assert [record.who for record in caplog.records if record.name.endswith("requests")] == ["label"] * len(paths)
    for path, answer in zip(paths, first, strict=True):
        same = other.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", answer.headers["etag"])
    api.put(f"{JOBS}/{job_id}/pools/rollout", json={"replicas": 7}, headers={"If-Match": "*"})
    newer = other.get(paths[1], headers={"If-None-Match": first[1].headers["etag"]})
    assert newer.status_code == 200
    assert newer.json()["items"][0]["replicas"] == 7
