"""Which locations a transport keeps."""

from __future__ import annotations

from rlhf_cluster.weights.recent import RecentVersions


def test_two_versions_stay_with_all_their_locations():
    recent = RecentVersions()
    assert [recent.add(f"whole-{version}", version=version) for version in (1, 2)] == [[], []]
    assert recent.add("delta-2", version=2) == []
    assert recent.add("whole-3", version=3) == ["whole-1"]
    assert recent.add("whole-4", version=4) == ["whole-2", "delta-2"]
    assert recent.clear() == ["whole-3", "whole-4"]
    assert recent.clear() == []


def test_a_location_that_was_written_again_is_kept_once():
    recent = RecentVersions()
    for _ in range(3):
        assert recent.add("whole-1", version=1) == []
    assert recent.clear() == ["whole-1"]


def test_after_a_resume_the_lower_versions_are_the_newer_ones():
    recent = RecentVersions()
    for version in (8, 9):
        recent.add(version, version=version)
    assert recent.add(5, version=5) == [8]
    assert recent.add(6, version=6) == [9]
