"""People judge pairs over REST: made of what is sent, shown blind, said once, taken back, measured and exported."""

from __future__ import annotations

import json

import pytest
from fastapi.testclient import TestClient

from rlhf_cluster.data.preference_files import read_preferences
from rlhf_cluster.flow.labelling import on_the_left
from rlhf_cluster.service.store import label_sets, labels, tokens

from .answers import refusal
from .conftest import URL

SETS = "/api/v1/label-sets"
PAIRS = [
    {"prompt": f"question {number}", "completion_a": f"a{number}", "completion_b": f"b{number}", "model": "m"}
    for number in range(4)
]


@pytest.fixture
def make(api):
    def post(name="taste", pairs=PAIRS, **fields):
        answer = api.post(SETS, json={"name": name, "pairs": pairs, **fields})
        assert answer.status_code == 201, answer.text
        return answer.json()

    return post


@pytest.fixture
def people(app, db):
    """People by the names of their tokens."""

    def person(name):
        with db.writing() as connection:
            _, secret = tokens.add(connection, name=name, scopes=["label"], now_s=1.0)
        return TestClient(app, base_url=URL, headers={"Authorization": f"Bearer {secret}"})

    return person


def turn(who, name="taste"):
    answer = who.post(f"{SETS}/{name}/next")
    assert answer.status_code == 200, answer.text
    return answer.json()


def say(who, choice, name="taste", **fields):
    """Of the pair before them; `a` and `b` are whichever side that is."""
    pair = turn(who, name)["pair"]
    if choice in ("a", "b"):
        choice = "left" if pair["left"].startswith(choice) else "right"
    answer = who.post(f"{SETS}/{name}/labels", json={"pair_id": pair["pair_id"], "choice": choice, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


def exported(who, **params):
    answer = who.get(f"{SETS}/taste/export.jsonl", params=params)
    assert answer.headers["content-type"] == "application/jsonl"
    return [json.loads(line) for line in answer.text.splitlines()]


def test_a_set_is_made_listed_shown_grown_and_removed(api, make):
    made = make(guidelines="be kind", overlap=2, seed=7)
    assert made == {
        "name": "taste",
        "created_by": "submit",
        "created_s": made["created_s"],
        "seed": 7,
        "overlap": 2,
        "guidelines": "be kind",
        "num_pairs": 4,
        "num_labels": 0,
        "num_done": 0,
    }
    make("other")
    assert [each["name"] for each in api.get(SETS).json()["items"]] == ["other", "taste"]
    grown = api.post(f"{SETS}/taste/pairs", json={"pairs": [{"prompt": "q", "chosen": "c", "rejected": "r"}]}).json()
    assert grown["num_pairs"] == 5
    assert api.get(f"{SETS}/taste").json() == grown
    assert api.delete(f"{SETS}/taste").status_code == 204
    refusal(api.get(f"{SETS}/taste"), 404, "not_found")


def test_the_same_request_under_one_key_makes_one_set(api):
    body, headers = {"name": "taste", "pairs": PAIRS}, {"Idempotency-Key": "k"}
    first, again = (api.post(SETS, json=body, headers=headers) for _ in range(2))
    assert (first.json(), again.headers["idempotency-replayed"]) == (again.json(), "true")
    assert "another name" in refusal(api.post(SETS, json=body), 409, "name_is_taken")


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([], "pairs"),
        ([{"prompt": "q"}], "pairs.0: Value error, give completion_a and completion_b"),
        ([{"prompt": "q", "completion_a": "a", "rejected": "r"}], "this pair has completion_a, rejected"),
        ([PAIRS[0], {"completion_a": "a", "completion_b": "b"}], "pairs.1.prompt"),
        ([{"prompt": "q", "chosen": [{"role": "assistant"}], "rejected": "r"}], "pairs.0.chosen"),
        ([{**PAIRS[0], "prompt": []}], "pairs.0.prompt"),
    ],
)
def test_pairs_that_are_none_are_refused_by_their_number(api, pairs, words):
    assert words in refusal(api.post(SETS, json={"name": "taste", "pairs": pairs}), 422, "invalid_request")


def test_an_id_is_of_one_pair_and_a_name_can_stand_in_an_address(api, make):
    twice = [{**PAIRS[0], "pair_id": "x"}, {**PAIRS[1], "pair_id": "x"}]
    refusal(api.post(SETS, json={"name": "taste", "pairs": twice}), 422, "pair_id_is_taken")
    refusal(api.get(f"{SETS}/taste"), 404, "not_found")
    refusal(api.post(SETS, json={"name": "a/b", "pairs": PAIRS}), 422, "invalid_request")


def test_a_pair_is_shown_blind_on_the_sides_that_the_seed_gives(make, people):
    make(seed=3, pairs=[*PAIRS, {"prompt": "old", "chosen": "a!", "rejected": "b!", "rater": "eve"}])
    ada = people("ada")
    for number in range(5):
        pair = turn(ada)["pair"]
        assert set(pair) == {"pair_id", "prompt", "left", "right", "until_s"}
        side = on_the_left(seed=3, number=number, labeler="ada")
        assert (pair["left"][0], {pair["left"][0], pair["right"][0]}) == (side, {"a", "b"})
        said = say(ada, "left", taken_s=1.5)
        assert said == {**said, "pair_id": str(number), "labeler": "ada", "choice": "left", "taken_s": 1.5}
    assert turn(ada) == {"pair": None, "num_mine": 5, "num_left": 0, "num_elsewhere": 0}


def test_whoever_asks_again_sees_the_same_pair_and_the_last_slot_is_one_persons(make, people):
    make(pairs=PAIRS[:1])
    ada, bob = people("ada"), people("bob")
    assert turn(ada)["pair"]["pair_id"] == turn(ada)["pair"]["pair_id"] == "0"
    assert turn(bob) == {"pair": None, "num_mine": 0, "num_left": 1, "num_elsewhere": 1}
    say(ada, "tie")
    assert turn(bob)["num_left"] == 0


def test_a_label_said_again_is_the_same_one_and_another_needs_an_undo(make, people):
    make()
    ada = people("ada")
    first = say(ada, "left")
    again = ada.post(f"{SETS}/taste/labels", json={"pair_id": "0", "choice": "left"})
    assert (again.status_code, again.json()) == (201, first)
    changed = ada.post(f"{SETS}/taste/labels", json={"pair_id": "0", "choice": "tie"})
    assert "undo that" in refusal(changed, 409, "labelled_already")
    not_given = ada.post(f"{SETS}/taste/labels", json={"pair_id": "3", "choice": "tie"})
    assert "ask for the next" in refusal(not_given, 409, "not_before_you")


def test_an_undo_is_done_once_under_one_key_and_goes_back_one_by_one(api, make, people):
    make()
    ada = people("ada")
    refusal(ada.post(f"{SETS}/taste/undo"), 409, "nothing_to_undo")
    say(ada, "left")
    say(ada, "skip")
    for _ in range(2):
        undone = ada.post(f"{SETS}/taste/undo", headers={"Idempotency-Key": "u"}).json()
        assert (undone["pair_id"], undone["choice"]) == ("1", "skip")
    assert turn(ada)["pair"]["pair_id"] == "1"
    assert ada.post(f"{SETS}/taste/undo").json()["choice"] == "left"
    assert turn(ada)["pair"]["pair_id"] == "0"
    assert api.get(f"{SETS}/taste").json()["num_labels"] == 0


def test_a_pair_that_others_judged_while_it_lay_there_is_told(app, make, people):
    app.state.service.settings = app.state.service.settings.model_copy(update={"label_lease_s": 1e-6})
    make(pairs=PAIRS[:1])
    ada, bob = people("ada"), people("bob")
    assert turn(ada)["pair"]["pair_id"] == "0"
    say(bob, "a")
    late = ada.post(f"{SETS}/taste/labels", json={"pair_id": "0", "choice": "left"})
    assert "others have judged it" in refusal(late, 409, "taken_by_others")


def test_statistics_tell_who_agrees_and_whether_a_side_is_favoured(api, make, people):
    make(overlap=2)
    ada, bob = people("ada"), people("bob")
    for choice, taken_s in (("a", 1.0), ("b", 3.0), ("tie", 5.0), ("skip", 99.0)):
        say(ada, choice, taken_s=taken_s)
    said = {"0": "a", "1": "a", "2": "tie", "3": "b"}
    for _ in said:
        say(bob, said[turn(bob)["pair"]["pair_id"]], taken_s=2.0)
    bob.post(f"{SETS}/taste/undo")  # of the tie
    told = api.get(f"{SETS}/taste/statistics").json()
    assert (told["num_labels"], told["num_skips"], told["num_undone"]) == (6, 1, 1)
    assert (told["tie_rate"], told["skip_rate"]) == (pytest.approx(1 / 6), pytest.approx(1 / 7))
    assert (told["median_s"], told["agreement"]) == (2.0, 0.5)
    assert told["pairs_of_labelers"] == [{"labelers": ["ada", "bob"], "num_pairs": 2, "agreement": 0.5, "kappa": 0.0}]
    assert [
        (each["labeler"], each["num_labels"], each["num_ties"], each["num_skips"]) for each in told["labelers"]
    ] == [
        ("ada", 3, 1, 1),
        ("bob", 3, 0, 0),
    ]
    num_left = sum(each["num_left"] for each in told["labelers"])
    assert told["left_share"] == pytest.approx(num_left / 5)
    assert told["left_interval"][0] < told["left_share"] < told["left_interval"][1] or num_left in (0, 5)


def test_a_set_without_labels_has_statistics_of_nothing(api, make):
    make()
    told = api.get(f"{SETS}/taste/statistics").json()
    assert (told["num_labels"], told["left_share"], told["left_interval"]) == (0, None, [0.0, 1.0])
    assert (told["median_s"], told["agreement"], told["labelers"]) == (None, None, [])


def test_an_export_holds_the_majority_of_each_pair_and_tells_ties(api, make, people):
    make(overlap=3)
    ada, bob, cyd = people("ada"), people("bob"), people("cyd")
    said = {"0": "aab", "1": "bbb", "2": ("a", "b", "tie")}
    for index, who in enumerate((ada, bob, cyd)):
        for _ in range(4):
            pair_id = turn(who)["pair"]["pair_id"]
            say(who, said[pair_id][index] if pair_id in said else "skip")
    lines = exported(api)
    assert [(each["pair_id"], each["label"], each["tie"]) for each in lines] == [
        ("0", "a", False),
        ("1", "b", False),
        ("2", "tie", True),
    ]
    provenance = lines[1].pop("provenance")
    assert (provenance["model"], [each["labeler"] for each in provenance["labels"]]) == ("m", ["ada", "bob", "cyd"])
    assert lines[1] == {
        "pair_id": "1",
        "prompt": "question 1",
        "chosen": "b1",
        "rejected": "a1",
        "tie": False,
        "completion_a": "a1",
        "completion_b": "b1",
        "label": "b",
        "labeler": "majority",
        "kind": "person",
        "time_s": lines[1]["time_s"],
        "num_labels": 3,
        "agreement": 1.0,
        "labelers": ["ada", "bob", "cyd"],
    }
    assert (lines[0]["chosen"], lines[0]["agreement"]) == ("a0", pytest.approx(2 / 3))
    assert (lines[2]["chosen"], lines[2]["rejected"], lines[2]["agreement"]) == ("a2", "b2", pytest.approx(1 / 3))
    assert exported(api, min_labels=4) == []


def test_a_chat_is_shown_with_who_says_what_and_exported_as_it_came(api, make, people):
    alone, longer = [{"role": "user", "content": "hello"}], [{"role": "system", "content": "be kind"}]
    chats = [alone, [*longer, *alone]]
    make(pairs=[{**pair, "prompt": chat} for pair, chat in zip(PAIRS[:2], chats, strict=True)])
    ada = people("ada")
    for shown in ("hello", "system:\nbe kind\n\nuser:\nhello"):
        assert turn(ada)["pair"]["prompt"] == shown
        say(ada, "b")
    assert [each["prompt"] for each in exported(api)] == chats


def test_what_is_exported_is_read_as_preferences_and_can_be_judged_anew_and_blind(api, make, people, tmp_path):
    make(pairs=[*PAIRS[:3], {"prompt": "old", "chosen": "a!", "rejected": "b!"}])
    ada = people("ada")
    for choice in ("a", "b", "tie", "b"):
        say(ada, choice)
    lines = api.get(f"{SETS}/taste/export.jsonl").text
    (tmp_path / "labels.jsonl").write_text(lines)
    read = read_preferences(tmp_path / "labels.jsonl")
    assert [(each.pair_id, each.label, each.labeler, each.kind) for each in read] == [
        (str(number), label, "ada", "person") for number, label in enumerate(("a", "b", "tie", "b"))
    ]
    assert [each.provenance for each in read] == [{"model": "m"}] * 3 + [{"before": {"label": "a"}}]
    make("again", pairs=[json.loads(line) for line in lines.splitlines()])
    say(people("bob"), "b", "again")
    [again] = [json.loads(line) for line in api.get(f"{SETS}/again/export.jsonl").text.splitlines()]
    assert (again["completion_a"], again["chosen"], again["labelers"]) == ("a0", "b0", ["bob"])
    before = again["provenance"]["before"]
    assert (before["label"], before["labeler"], again["provenance"]["model"]) == ("a", "ada", "m")


def test_an_export_of_many_pairs_is_read_piece_by_piece_and_whole(api, db, make):
    num = 1203
    make(pairs=[{"prompt": "", "completion_a": "a", "completion_b": "b", "pair_id": f"p{n}"} for n in range(num)])
    with db.writing() as connection:
        set_id = label_sets.get(connection, "taste").set_id
        for number in range(0, num, 2):
            fields = {"choice": "b", "shown_left": "a", "taken_s": 1.0, "now_s": 1.0}
            labels.add(connection, set_id, "ada", number, **fields)
    lines = exported(api)
    assert [each["pair_id"] for each in lines] == [f"p{number}" for number in range(0, num, 2)]


def test_labelling_needs_the_scope_label_and_making_a_set_the_scope_submit(api_as, make):
    make()
    reader, labeler = api_as("read"), api_as("label")
    for path, body in (("next", None), ("labels", {"pair_id": "0", "choice": "tie"}), ("undo", None)):
        refusal(reader.post(f"{SETS}/taste/{path}", json=body), 403, "forbidden")
    for path in ("", "/statistics", "/export.jsonl"):
        assert reader.get(f"{SETS}/taste{path}").status_code == 200
    refusal(labeler.post(SETS, json={"name": "other", "pairs": PAIRS}), 403, "forbidden")
    refusal(labeler.post(f"{SETS}/taste/pairs", json={"pairs": PAIRS}), 403, "forbidden")
    refusal(labeler.delete(f"{SETS}/taste"), 403, "forbidden")
    assert say(labeler, "tie")["labeler"] == "label"


@pytest.mark.parametrize(
    "method_and_path", ["GET", "DELETE", "POST next", "POST undo", "GET statistics", "GET export.jsonl"]
)
def test_a_set_that_is_not_there_is_not_found(api, method_and_path):
    method, _, path = method_and_path.partition(" ")
    refusal(api.request(method, f"{SETS}/nowhere" + (f"/{path}" if path else "")), 404, "not_found")
