"""Every error survives the way between two processes, with its fields and its place in the tree."""

from __future__ import annotations

import pickle

import pytest

from rlhf_cluster import errors
from rlhf_cluster.errors import RlhfError, RoleError, did_you_mean

ERRORS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RlhfError)]


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_survives_pickling(kind):
    sent = kind("three of four rows")
    arrived = pickle.loads(pickle.dumps(sent))
    assert type(arrived) is kind
    assert str(arrived) == "three of four rows"


@pytest.mark.parametrize(
    "kind", [kind for kind in ERRORS if issubclass(kind, RoleError)], ids=lambda kind: kind.__name__
)
def test_errors_of_roles_keep_their_fields(kind):
    sent = kind("late", role="learner", worker_id="learner-1", activity="updating")
    arrived = pickle.loads(pickle.dumps(sent))
    assert (arrived.role, arrived.worker_id, arrived.activity) == ("learner", "learner-1", "updating")


def test_every_error_stands_in_the_tree_of_the_docstring():
    for kind in ERRORS:
        assert kind.__name__ in errors.__doc__


@pytest.mark.parametrize("name", ["ConfigError", "DataError", "ModelError"])
def test_what_the_user_got_wrong_is_a_value_error(name):
    assert issubclass(getattr(errors, name), ValueError)


def test_a_near_miss_gets_a_hint_and_a_far_one_none():
    assert did_you_mean("vadre", ["vader", "length"]) == " (did you mean 'vader'?)"
    assert did_you_mean("zzz", ["vader", "length"]) == ""
