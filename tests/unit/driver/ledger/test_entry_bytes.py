import pytest

from rlhf_cluster.driver.ledger.entry_bytes import KINDS, decode, encode
from rlhf_cluster.errors import StorageError
from rlhf_cluster.flow.history import History
from rlhf_cluster.flow.settle import settle
from rlhf_cluster.testing.ledger_story import ledger_story


def test_every_kind_of_entry_comes_back_the_same():
    story = ledger_story()
    entries = [*story, *settle(story, History(story), step=2)]
    assert {type(entry).__name__ for entry in entries} == KINDS.keys() - {"Entry"}
    assert [decode(encode(entry)) for entry in entries] == entries


def test_an_entry_is_compact_json_that_begins_with_its_kind():
    assert encode(ledger_story()[0]) == b'{"k":"Opened","epoch":1,"time_s":0.0,"step":0,"restarted":[]}'


@pytest.mark.parametrize("content", [b"", b"[]", b'{"k":"Vanished"}', b'{"k":"Saved","epoch":1}'])
def test_an_entry_of_another_version_is_refused_and_says_so(content):
    with pytest.raises(StorageError, match="version of the package that wrote it"):
        decode(content)
