"""Pairs for people to judge: given to one at a time, judged once by each, taken back, never more often than wanted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select

from rlhf_cluster.service.store import label_sets, labels
from rlhf_cluster.service.store.database import Database
from rlhf_cluster.service.store.tables import label_leases, label_pairs
from rlhf_cluster.service.store.tables import labels as labels_table
from rlhf_cluster.wire.labels import NewPair

LEASE_S = 60.0


def pair(number: int, **more) -> NewPair:
    return NewPair(prompt=f"question {number}", completion_a=f"a{number}", completion_b=f"b{number}", **more)


class Stage:
    """A set, and people who judge it at times of the test's choice."""

    def __init__(self, db: Database, *, num_pairs: int, overlap: int, name: str = "a-set") -> None:
        self.db = db
        self.name = name
        with db.writing() as connection:
            made = {"created_by": "ada", "seed": 5, "overlap": overlap, "guidelines": "be kind", "now_s": 1.0}
            self.set_id = label_sets.add(connection, name=name, **made).set_id
            label_sets.add_pairs(connection, self.set_id, [pair(number) for number in range(num_pairs)])

    @property
    def row(self):
        with self.db.reading() as connection:
            return label_sets.progress(connection, self.name)

    def give(self, who: str, *, now_s: float = 10.0) -> int | None:
        with self.db.writing() as connection:
            row = label_sets.get(connection, self.name)
            given = labels.give(connection, row, who, now_s=now_s, lease_s=LEASE_S)
        return None if given is None else given.number

    def say(self, who: str, choice: str = "a", *, now_s: float = 10.0) -> int:
        """Of what they are given."""
        number = self.give(who, now_s=now_s)
        assert number is not None
        with self.db.writing() as connection:
            fields = {"choice": choice, "shown_left": "a", "taken_s": 2.0, "now_s": now_s}
            labels.add(connection, self.set_id, who, number, **fields)
        return number

    def undo(self, who: str, *, now_s: float = 11.0):
        with self.db.writing() as connection:
            return labels.undo_last(connection, self.set_id, who, now_s=now_s, lease_s=LEASE_S)

    def open_to(self, who: str, *, now_s: float = 10.0) -> tuple[int, int]:
        with self.db.reading() as connection:
            return labels.num_open_to(connection, label_sets.get(connection, self.name), who, now_s=now_s)


def test_a_set_grows_by_pairs_and_tells_how_far_it_is(db: Database):
    stage = Stage(db, num_pairs=2, overlap=2)
    with db.writing() as connection:
        label_sets.add_pairs(connection, stage.set_id, [pair(9, pair_id="p\0", model="m")])
        rows = label_sets.pairs_from(connection, stage.set_id, 0, limit=9, min_labels=0)
    assert [(row.number, row.pair_id) for row in rows] == [(0, "0"), (1, "1"), (2, "p\ufffd")]
    assert (rows[2].prompt, rows[2].completion_b, rows[2].provenance) == ("question 9", "b9", {"model": "m"})
    for who in ("ada", "bob"):
        stage.say(who)
        stage.say(who)
    stage.say("ada", "skip")
    row = stage.row
    assert (row.num_pairs, row.num_labels, row.num_done) == (3, 4, 1)
    assert (row.seed, row.overlap, row.guidelines, row.created_by) == (5, 2, "be kind", "ada")


@pytest.mark.parametrize("ids", [("x", "x"), ("1", None), ("p\0", "p\ufffd")])
def test_an_id_that_another_pair_has_is_refused_and_nothing_is_added(db: Database, ids):
    stage = Stage(db, num_pairs=1, overlap=1)
    with pytest.raises(ValueError, match=r"pairs\.1\.pair_id"), db.writing() as connection:
        label_sets.add_pairs(connection, stage.set_id, [pair(8, pair_id=ids[0]), pair(9, pair_id=ids[1] or "0")])
    assert stage.row.num_pairs == 1


def test_a_name_is_of_one_set_and_sets_are_newest_first_page_by_page(db: Database):
    for number in range(3):
        Stage(db, num_pairs=number + 1, overlap=1, name=f"set-{number}")
    with db.writing() as connection:
        fields = {"created_by": "bob", "seed": 0, "overlap": 1, "guidelines": "", "now_s": 2.0}
        assert label_sets.add(connection, name="set-1", **fields) is None
        first, cursor = label_sets.page(connection, limit=2)
        rest, end = label_sets.page(connection, limit=2, cursor=cursor)
    assert [(row.name, row.num_pairs) for row in (*first, *rest)] == [("set-2", 3), ("set-1", 2), ("set-0", 1)]
    assert end is None


def test_nobody_judges_a_pair_twice_and_the_one_with_the_fewest_labels_comes_first(db: Database):
    stage = Stage(db, num_pairs=3, overlap=2)
    assert [stage.say("ada") for _ in range(2)] == [0, 1]
    assert [stage.say("bob") for _ in range(3)] == [2, 0, 1]
    assert stage.say("ada") == 2
    assert stage.give("ada") is None
    assert stage.give("cyd") is None  # every pair has its two labels
    assert stage.row.num_done == 3


def test_whoever_asks_again_has_the_same_pair_before_them(db: Database):
    stage = Stage(db, num_pairs=3, overlap=3)
    assert stage.give("ada") == stage.give("ada", now_s=50.0) == 0
    assert stage.give("bob", now_s=100.0) == 1  # hers is kept from when she asked last
    assert stage.give("bob", now_s=500.0) == 1


def test_the_last_slot_of_a_pair_goes_to_one_and_to_others_when_its_time_is_over(db: Database):
    stage = Stage(db, num_pairs=1, overlap=1)
    assert stage.give("ada", now_s=10.0) == 0
    assert stage.give("bob", now_s=10.0 + LEASE_S - 1) is None
    assert stage.open_to("bob", now_s=10.0 + LEASE_S - 1) == (1, 1)
    assert stage.give("bob", now_s=10.0 + LEASE_S) == 0
    assert stage.give("ada", now_s=10.0 + LEASE_S) is None  # it is his now
    stage.say("bob", now_s=80.0)
    assert (stage.row.num_done, stage.open_to("ada")) == (1, (0, 0))


def test_one_who_was_away_for_long_goes_on_with_their_pair_where_nobody_took_it(db: Database):
    stage = Stage(db, num_pairs=1, overlap=1)
    stage.give("ada", now_s=10.0)
    with db.reading() as connection:
        assert labels.is_free(connection, label_sets.get(connection, "a-set"), 0, "ada", now_s=10_000.0)


def test_a_skip_fills_no_slot_and_does_not_come_back(db: Database):
    stage = Stage(db, num_pairs=1, overlap=1)
    stage.say("ada", "skip")
    assert (stage.row.num_labels, stage.give("ada"), stage.give("bob")) == (0, None, 0)


def test_what_is_undone_does_not_count_and_its_pair_is_before_the_person_again(db: Database):
    stage = Stage(db, num_pairs=3, overlap=1)
    stage.say("ada")
    stage.say("bob")
    stage.say("ada", "tie")
    assert stage.undo("ada").number == 2
    assert (stage.row.num_labels, stage.give("ada")) == (2, 2)
    assert stage.undo("ada").number == 0  # the one before
    assert (stage.row.num_labels, stage.give("ada")) == (1, 0)
    assert stage.undo("ada") is None
    assert stage.give("bob") == 2  # the slot of what she gave up
    assert stage.say("ada") == 0
    with db.reading() as connection:
        rows = labels.of_set(connection, stage.set_id)
        counting = labels.of_pairs(connection, stage.set_id, 0, 2)
        assert labels.num_of(connection, stage.set_id, "ada") == 1
        assert labels.of_pair(connection, stage.set_id, "ada", "2") is None
    assert [(row.labeler, row.undone_s is None) for row in rows] == [
        ("ada", False),
        ("bob", True),
        ("ada", False),
        ("ada", True),
    ]
    assert [(row.labeler, row.number) for row in counting] == [("bob", 1), ("ada", 0)]


def test_a_set_goes_with_all_that_belongs_to_it(db: Database):
    stage = Stage(db, num_pairs=2, overlap=1)
    stage.say("ada")
    stage.give("ada")
    with db.writing() as connection:
        label_sets.delete(connection, stage.set_id)
        for table in (label_pairs, labels_table, label_leases):
            assert connection.execute(select(func.count()).select_from(table)).scalar_one() == 0


def test_many_at_once_fill_every_slot_once(db: Database):
    num_pairs, overlap, people = 10, 2, ("ada", "bob", "cyd", "dan")
    stage = Stage(db, num_pairs=num_pairs, overlap=overlap)

    def judge(who: str) -> int:
        num = 0
        while (number := stage.give(who)) is not None:
            with db.writing() as connection:
                row = label_sets.get(connection, "a-set")
                assert labels.is_free(connection, row, number, who, now_s=10.0)
                fields = {"choice": "b", "shown_left": "a", "taken_s": 1.0, "now_s": 10.0}
                labels.add(connection, stage.set_id, who, number, **fields)
            num += 1
        return num

    with ThreadPoolExecutor(len(people)) as threads:
        nums = list(threads.map(judge, people))
    row = stage.row
    # Somebody may leave while others still have the last pairs before them; nobody does more than there is.
    assert sum(nums) == row.num_labels == num_pairs * overlap
    assert row.num_done == num_pairs
