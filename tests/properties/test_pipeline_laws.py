"""Laws of pipelines: order respects references, digests tell every change, and a kill anywhere costs nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_cluster.pipeline.graph import Stage, ordered
from rlhf_cluster.pipeline.ingredients import Ingredients, differences
from rlhf_cluster.pipeline.load import load_pipelines
from rlhf_cluster.pipeline.run import run_pipeline
from rlhf_cluster.testing import FakeClock
from rlhf_cluster.testing.pipelines import FakeJobs, save_stand_in_model, stage_table, write_pipeline

words = st.sampled_from("abc")
values = st.none() | st.booleans() | st.integers(0, 2) | st.floats(0, 2) | words
trees = st.dictionaries(
    words, st.recursive(values, lambda x: st.lists(x, max_size=2) | st.dictionaries(words, x, max_size=2), max_leaves=4)
)
ingredients = st.builds(
    Ingredients,
    job=trees,
    inputs=st.dictionaries(words, words, max_size=2),
    code=st.dictionaries(words, words, max_size=2),
)


@st.composite
def graphs(draw) -> list[Stage]:
    """Stages in any order, each of which may need those with a smaller number."""
    stages = []
    for number in range(draw(st.integers(1, 7))):
        needs = draw(st.sets(st.integers(0, number - 1), max_size=3)) if number else set()
        stages.append(Stage(name=f"s{number}", job={"inputs": [f"{{s{each}.model}}" for each in sorted(needs)]}))
    return draw(st.permutations(stages))


@given(graphs())
def test_every_stage_comes_once_and_after_all_that_it_needs(stages):
    order = [stage.name for stage in ordered(stages)]
    assert sorted(order) == sorted(stage.name for stage in stages)
    for stage in stages:
        assert all(order.index(needed) < order.index(stage.name) for needed in stage.needs)


@given(graphs())
def test_stages_in_a_good_order_keep_it(stages):
    good = ordered(stages)
    assert ordered(good) == good


@given(ingredients, ingredients)
def test_digests_differ_exactly_if_there_is_a_difference_to_tell(one, other):
    assert (one.digest != other.digest) == bool(differences(one, other))


@given(ingredients, st.data())
def test_any_change_of_a_setting_an_input_or_the_code_is_another_digest(before, data):
    part = data.draw(st.sampled_from(["job", "inputs", "code"]))
    changed = {**getattr(before, part), "a": "quite another"}
    after = before.model_copy(update={part: changed})
    assert after.digest != before.digest
    assert before.model_copy(update={"job": {**before.job, "output_dir": "x"}}).digest == before.digest


class Killed(BaseException):
    pass


class Killer:
    """Kills at the given transition of each life; lives after the last one are spared."""

    def __init__(self, kills: list[int]) -> None:
        self.kills = list(kills)
        self.left = 0

    def begin_life(self) -> None:
        self.left = self.kills.pop(0) if self.kills else -1

    def at(self, _: str) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed


def final_state(directory: Path, kills: list[int]) -> dict[str, Any]:
    """All that lies on disk in the end, times aside."""
    base = save_stand_in_model(directory / "base")
    stages = {
        "sft": stage_table(str(base)),
        "left": stage_table("{sft.model}", data__train={"type": "jsonl", "path": "{sft.pairs}"}),
        "both": stage_table("{left.model}", reference__model="{sft.model}"),
    }
    killer = Killer(kills)
    jobs = FakeJobs(leaves={"preferences.jsonl": "{}"}, at=killer.at)
    file = write_pipeline(directory / "tiny.yaml", stages)
    for _ in range(len(kills) + 1):
        [pipeline] = load_pipelines(file)
        killer.begin_life()
        try:
            run_pipeline(pipeline, runner=jobs, clock=FakeClock(), at=killer.at)
        except Killed:
            continue
    kept = {path for path in pipeline.directory.rglob("*") if path.is_file() and path.parent.name != "epochs"}
    return {str(path.relative_to(directory)): without_places(path, directory) for path in kept}


def without_places(path: Path, directory: Path) -> Any:
    text = path.read_text().replace(str(directory), "here")
    return (
        json.loads(text)
        if path.name in ("pipeline.json", "lineage.json")
        else len(text)
        if "MANIFEST" in text
        else text
    )


def fresh_final_state(directory: Path, kills: list[int]) -> dict[str, Any]:
    """In the same place each time, as the path of the base model is a setting."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    return final_state(directory, kills)


def test_whatever_is_killed_at_any_write_ends_as_if_nothing_had_been(tmp_path):
    unbroken = fresh_final_state(tmp_path / "place", [])

    @settings(max_examples=15)
    @given(st.lists(st.integers(1, 24), min_size=1, max_size=2))
    def law(kills: list[int]) -> None:
        assert fresh_final_state(tmp_path / "place", kills) == unbroken

    law()
