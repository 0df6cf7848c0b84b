"""Label sets by command lines: made of a file, judged in the terminal, shown, exported and removed."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from rlhf_cluster.cli import label_file
from rlhf_cluster.cli.main import rlhf as program
from rlhf_cluster.data.preferences import COLUMNS

FIGURES = {"num_labels", "agreement", "labelers"}


@pytest.fixture
def file(tmp_path):
    def write(*rows):
        path = tmp_path / "pairs.jsonl"
        path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
        return str(path)

    return write


def pair(number: int, **more) -> dict:
    return {"prompt": f"question {number}", "completion_a": f"a{number}", "completion_b": f"b{number}", **more}


@pytest.fixture
def a_set(rlhf, service, file):
    assert rlhf("label", "add", "words", file(pair(0), pair(1), pair(2, judge="rule")), "--overlap", "2")[0] == 0
    yield "words"
    assert rlhf("label", "remove", "words")[0] == 0


@pytest.fixture
def work(service):
    def judge(name: str, *keys: str) -> str:
        said = "".join(f"{key}\n" for key in keys)
        done = CliRunner().invoke(program, ["label", "work", name], input=said, standalone_mode=False)
        assert done.exception is None
        return done.output

    return judge


def test_a_set_is_made_of_a_file_listed_and_removed(rlhf, service, file, tmp_path):
    (tmp_path / "how.md").write_text("be kind")
    path = file(pair(0), "", {"prompt": "q", "chosen": "c", "rejected": "r"})
    code, out, _ = rlhf("label", "add", "mine", path, "--guidelines", str(tmp_path / "how.md"), "--seed", "3")
    assert (code, out) == (0, "mine has 2 pairs; `rlhf label work mine`\n")
    [listed] = json.loads(rlhf("label", "list", "-o", "json")[1])
    assert (listed["name"], listed["guidelines"], listed["seed"], listed["created_by"]) == (
        "mine",
        "be kind",
        3,
        "submiter",
    )
    assert rlhf("label", "list")[1].splitlines()[1].split()[:5] == ["mine", "2", "0", "0", "1"]
    assert rlhf("label", "remove", "mine") == (0, "removed mine\n", "")
    assert rlhf("label", "list")[1] == "there is no label set\n"
    assert rlhf("label", "show", "mine")[0] == 3


def test_a_file_of_many_pairs_goes_in_pieces_and_keeps_its_order(rlhf, service, file, monkeypatch):
    monkeypatch.setattr(label_file, "PIECE_PAIRS", 3)
    rlhf("label", "add", "many", file(*(pair(number) for number in range(10))))
    assert json.loads(rlhf("label", "show", "many", "-o", "json")[1])["label_set"]["num_pairs"] == 10
    rlhf("label", "remove", "many")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([pair(0), "{"], "line 2 is no JSON"),
        ([pair(0), {"prompt": "q", "chosen": "c"}], "line 2: give completion_a and completion_b"),
        ([{"completion_a": "a", "completion_b": "b"}], "line 1: prompt: Field required"),
        (["[]"], "line 1: "),
        ([], "holds no pair"),
    ],
)
def test_a_line_that_is_no_pair_is_told_and_nothing_is_sent(rlhf, service, file, rows, words):
    code, _, err = rlhf("label", "add", "wrong", file(*rows))
    assert (code, words in err) == (2, True), err
    assert rlhf("label", "show", "wrong")[0] == 3


def test_a_name_that_is_taken_or_none_is_refused(rlhf, service, file, a_set):
    assert "already" in rlhf("label", "add", "words", file(pair(0)))[2]
    assert rlhf("label", "add", "two words", file(pair(0)))[0] == 2


def test_pairs_are_judged_in_the_terminal_undone_and_exported(rlhf, service, a_set, work, tmp_path):
    out = work(a_set, "?", "1", "u", "2", "0", "s")
    assert "1 or 2: that answer is better" in out
    assert out.count("question 0") == 2
    assert "question 2" in out
    assert out.splitlines()[-1] == "that was all: every pair is judged, or you have judged it"
    lines = [json.loads(line) for line in rlhf("label", "export", a_set)[1].splitlines()]
    assert [(each["pair_id"], each["tie"], each["labelers"]) for each in lines] == [
        ("0", False, ["submiter"]),
        ("1", True, ["submiter"]),
    ]
    assert set(lines[0]) == {*COLUMNS, *FIGURES} - {"other_columns"}
    path = tmp_path / "out.jsonl"
    assert rlhf("label", "export", a_set, "--to", str(path))[1] == f"2 pairs are in {path}\n"
    assert [json.loads(line) for line in path.read_text().splitlines()] == lines
    assert rlhf("label", "export", a_set, "--min-labels", "2")[1] == ""


def test_what_is_known_of_the_labels_is_shown(rlhf, service, a_set, work, monkeypatch):
    work(a_set, "1", "1", "0")
    monkeypatch.setenv("RLHF_TOKEN", service.tokens["admin"])
    work(a_set, "1", "q")
    code, out, _ = rlhf("label", "show", a_set)
    assert code == 0
    assert "1 of 3 have the 2 wanted" in out
    assert [line.split()[:2] for line in out.splitlines() if line.startswith(("submiter", "adminer"))] == [
        ["submiter", "3"],
        ["adminer", "1"],
        ["adminer", "and"],
    ]
    told = json.loads(rlhf("label", "show", a_set, "-o", "json")[1])["statistics"]
    assert (told["num_labels"], told["pairs_of_labelers"][0]["num_pairs"]) == (4, 1)


def test_undoing_where_there_is_nothing_is_told_and_the_work_goes_on(service, a_set, work):
    out = work(a_set, "u", "q")
    assert "you have said nothing yet" in out
    assert out.count("question 0") == 2


def test_a_reader_may_look_and_not_judge(rlhf, service, a_set, monkeypatch):
    monkeypatch.setenv("RLHF_TOKEN", service.tokens["read"])
    assert rlhf("label", "show", a_set)[0] == 0
    code, _, err = rlhf("label", "work", a_set)
    assert (code, "needs the scope 'label'" in err) == (4, True)
    monkeypatch.setenv("RLHF_TOKEN", service.tokens["submit"])
