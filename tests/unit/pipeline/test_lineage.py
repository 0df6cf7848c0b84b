"""What was made knows what made it, wherever it is copied to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rlhf_cluster.errors import StorageError
from rlhf_cluster.pipeline.lineage import Lineage, find_lineage
from rlhf_cluster.pipeline.lineage_tree import tree_lines
from rlhf_cluster.pipeline.load import load_pipelines
from rlhf_cluster.pipeline.run import run_pipeline
from rlhf_cluster.testing.pipelines import FakeJobs, save_stand_in_model, stage_table, write_pipeline


def run(directory: Path, stages: dict, name: str = "tiny") -> dict[str, Path]:
    """Stage -> its model."""
    [pipeline] = load_pipelines(write_pipeline(directory / f"{name}.yaml", stages, name=name, seed=5))
    made = run_pipeline(pipeline, runner=FakeJobs())
    return {stage: pipeline.directory / m.job_dir / m.outputs["model"].path for stage, m in made.items()}


def lineage_of(path: Path) -> Lineage:
    found = find_lineage(path)
    assert found is not None
    return found


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    base = save_stand_in_model(tmp_path / "base")
    return run(
        tmp_path,
        {
            "sft": stage_table(str(base)),
            "left": stage_table("{sft.model}"),
            "both": stage_table("{left.model}", reference__model="{sft.model}"),
            "aside": stage_table(str(base)),
        },
    )


def test_the_lineage_of_a_model_names_all_stages_that_had_a_part_and_no_other(models):
    lineage = lineage_of(models["both"])
    assert [ancestor.stage for ancestor in lineage.ancestors] == ["sft", "left", "both"]
    both, sft = lineage.ancestors[-1], lineage.ancestors[0]
    made_by = {origin.key: lineage.of(origin.made_by).stage for origin in both.inputs if origin.made_by}
    assert made_by == {"model": "left", "reference.model": "sft"}
    assert [(origin.key, origin.made_by) for origin in sft.inputs] == [("model", None)]
    assert both.ingredients.job["seed"] == 5
    assert "rlhf_cluster" in both.ingredients.code
    assert both.version.startswith("0.")


def test_a_job_directory_and_a_file_in_it_have_the_lineage_of_their_model(models):
    job_dir = models["left"].parents[1]
    assert lineage_of(job_dir) == lineage_of(job_dir / "job.json") == lineage_of(models["left"])


def test_a_copied_model_keeps_its_lineage_and_passes_it_on_to_another_pipeline(models, tmp_path):
    copied = Path(shutil.copytree(models["left"], tmp_path / "elsewhere" / "step-000002"))
    shutil.rmtree(tmp_path / "runs")
    further = run(tmp_path, {"more": stage_table(str(copied))}, name="second")
    ancestors = lineage_of(further["more"]).ancestors
    assert [(each.pipeline, each.stage) for each in ancestors] == [
        ("tiny", "sft"),
        ("tiny", "left"),
        ("second", "more"),
    ]


def test_what_no_pipeline_made_has_none(tmp_path):
    assert find_lineage(save_stand_in_model(tmp_path / "base")) is None


def test_a_lineage_that_cannot_be_read_is_named(models):
    (models["sft"] / "lineage.json").write_text("{")
    with pytest.raises(StorageError, match=r"lineage\.json cannot be read"):
        find_lineage(models["sft"])


def test_the_tree_shows_each_stage_once_below_what_it_went_into(models):
    lines = tree_lines(lineage_of(models["both"]))
    titles = [line.split()[0] for line in lines if line.strip().startswith("tiny/")]
    assert titles == ["tiny/both", "tiny/left", "tiny/sft", "tiny/sft"]
    assert [line for line in lines if line.endswith("(above)")] == [next(x for x in reversed(lines) if "tiny/sft" in x)]
    assert any("grpo, 2 steps, seed 5" in line for line in lines)
    assert any(line.strip().startswith("reference.model = {sft.model}") for line in lines)
