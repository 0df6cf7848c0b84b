"""Nothing of a growing directory is read twice or left out, however its files grow and whatever is torn."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.relay.spool import MAX_LINE_BYTES, JournalSpool, LogSpool, SampleSpool, last_lines

MANY = {"max_entries": 500, "max_bytes": 2**20}


def line(number: int) -> str:
    return json.dumps({"event": "Phase", "time_s": 1.0, "step": number, "name": "x"}) + "\n"


def steps(entries: list[dict]) -> list[int]:
    return [entry["step"] for entry in entries]


def test_entries_before_the_first_one_wanted_are_not_read_again(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text("".join(map(line, range(5))))
    spool = JournalSpool(path, num_entries=3)
    assert (spool.number, steps(spool.read(**MANY))) == (3, [3, 4])


def test_reading_moves_nothing_until_the_service_has_it(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text("".join(map(line, range(5))))
    spool = JournalSpool(path, num_entries=0)
    assert steps(spool.read(**MANY)) == steps(spool.read(**MANY)) == [0, 1, 2, 3, 4]
    spool.go_to(2)
    assert steps(spool.read(**MANY)) == [2, 3, 4]
    spool.go_to(1)
    assert steps(spool.read(**MANY)) == [1, 2, 3, 4]


def test_a_torn_line_waits_and_is_read_when_it_is_whole(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text(line(0) + line(1)[:-5])
    spool = JournalSpool(path, num_entries=0)
    assert steps(spool.read(**MANY)) == [0]
    spool.go_to(1)
    assert spool.read(**MANY) == []
    path.write_text(line(0) + line(1))
    assert steps(spool.read(**MANY)) == [1]


def test_a_torn_line_that_a_resume_cuts_off_leaves_no_trace(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text(line(0) + line(1)[:-5])
    spool = JournalSpool(path, num_entries=0)
    spool.read(**MANY)
    spool.go_to(1)
    path.write_text(line(0) + line(7))
    assert steps(spool.read(**MANY)) == [7]


def test_lines_that_a_crashed_machine_has_lost_do_not_swallow_the_new_ones(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text(line(0) + line(1))
    spool = JournalSpool(path, num_entries=5)
    assert spool.read(**MANY) == []
    with path.open("a") as file:
        file.write(line(2))
    assert (spool.number, steps(spool.read(**MANY))) == (5, [2])


def test_a_service_that_has_fewer_than_the_lost_lines_gets_all_there_are(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text(line(0) + line(1))
    spool = JournalSpool(path, num_entries=5)
    spool.go_to(1)
    assert (spool.number, steps(spool.read(**MANY))) == (1, [0, 1])


def test_a_damaged_line_becomes_a_notice_and_the_next_one_counts_on(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(line(0).encode() + b"\0\0\0\xff\n" + line(2).encode())
    entries = JournalSpool(path, num_entries=0).read(**MANY)
    assert [entry["event"] for entry in entries] == ["Phase", "Notice", "Phase"]
    assert "line 2" in entries[1]["text"]


def test_a_large_entry_is_read_alone_and_not_left_out(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text(line(0) + line(1))
    spool = JournalSpool(path, num_entries=0)
    assert steps(spool.read(max_entries=500, max_bytes=1)) == [0]


@given(data=st.data())
def test_a_journal_that_grows_anyhow_is_read_once(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("job") / "journal.jsonl"
    whole = "".join(map(line, range(20))).encode()
    spool = JournalSpool(path, num_entries=0)
    seen: list[int] = []
    for end in sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8))):
        path.write_bytes(whole[:end])
        entries = spool.read(max_entries=data.draw(st.integers(1, 5)), max_bytes=data.draw(st.integers(1, 300)))
        taken = data.draw(st.integers(0, len(entries)))
        seen += steps(entries[:taken])
        spool.go_to(len(seen))
    path.write_bytes(whole)
    seen += steps(spool.read(**MANY))
    assert seen == list(range(20))


def read_all(spool: LogSpool, *, is_final: bool = False) -> list[tuple[str, int, str]]:
    lines = spool.read(max_lines=1000, max_bytes=2**20, now_s=1.0, is_final=is_final)
    spool.taken(lines)
    return [(one.component, one.offset, one.line) for one in lines]


def test_log_lines_come_by_component_with_the_byte_at_which_they_begin(tmp_path):
    (tmp_path / "driver.log").write_text("one\ntwo\n")
    (tmp_path / "rollout-1.log").write_text("ä\nb\n")
    spool = LogSpool(tmp_path, newest={})
    assert read_all(spool) == [("driver", 0, "one"), ("driver", 4, "two"), ("rollout-1", 0, "ä"), ("rollout-1", 3, "b")]
    assert read_all(spool) == []


def test_a_log_goes_on_after_the_newest_line_of_the_service_whatever_its_bytes_were(tmp_path):
    (tmp_path / "driver.log").write_bytes(b"\xff\xfe\r\n" + b"x" * (MAX_LINE_BYTES + 5) + b"\nend\n")
    lines = read_all(LogSpool(tmp_path, newest={}))
    for number, (_, offset, _) in enumerate(lines):
        assert read_all(LogSpool(tmp_path, newest={"driver": offset})) == lines[number + 1 :]


def test_the_last_words_of_a_process_are_taken_without_their_line_end_only_at_the_end(tmp_path):
    (tmp_path / "driver.log").write_text("one\nSegmenta")
    spool = LogSpool(tmp_path, newest={})
    assert read_all(spool) == [("driver", 0, "one")]
    assert read_all(spool, is_final=True) == [("driver", 4, "Segmenta")]


def test_a_progress_bar_is_one_line_in_its_newest_state(tmp_path):
    (tmp_path / "driver.log").write_bytes(b" 0%\r 50%\r100%\r\n")
    assert read_all(LogSpool(tmp_path, newest={})) == [("driver", 0, "100%")]


def test_bounds_of_a_message_divide_a_log_and_lose_nothing(tmp_path):
    text = "".join(f"line {number}\n" for number in range(50))
    (tmp_path / "a.log").write_text(text)
    (tmp_path / "b.log").write_text(text)
    spool = LogSpool(tmp_path, newest={})
    seen: list[str] = []
    while lines := spool.read(max_lines=7, max_bytes=40, now_s=1.0):
        assert len(lines) <= 7
        spool.taken(lines)
        seen += [one.line for one in lines]
    assert seen == 2 * text.splitlines()


def test_samples_come_in_order_whole_and_once(tmp_path: Path):
    spool = SampleSpool(tmp_path / "samples", names=["step-000001.parquet"])
    assert spool.next() is None
    (tmp_path / "samples").mkdir()
    for name in ("step-000001.parquet", "step-000003.parquet", "step-000002.parquet", ".step-000004.parquet.tmp"):
        (tmp_path / "samples" / name).touch()
    seen = []
    while path := spool.next():
        seen.append(path.name)
        spool.done(path)
    assert seen == ["step-000002.parquet", "step-000003.parquet"]


def test_the_end_of_a_log_is_its_last_lines_that_say_something(tmp_path):
    (tmp_path / "driver.log").write_text("a\n\nb\n\nc\n\n")
    assert last_lines(tmp_path / "driver.log", num_lines=2) == ["b", "c"]
    assert last_lines(tmp_path / "nothing.log", num_lines=2) == []
