"""What `deploy/docs/data.md` shows is what a job may say, and it names what there is."""

import re
import tomllib
from pathlib import Path

import pytest

from rlhf_cluster.data.instructions import Instructions
from rlhf_cluster.data.preferences import COLUMNS
from rlhf_cluster.data.settings import DataSettings

PAGE = (Path(__file__).parents[3] / "deploy" / "docs" / "data.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_is_a_valid_table(example):
    assert DataSettings.model_validate(tomllib.loads(example)["data"]).train


def test_there_are_examples():
    assert len(EXAMPLES) == 2


@pytest.mark.parametrize("name", [*COLUMNS, *Instructions.model_fields])
def test_every_column_of_preferences_and_every_format_is_named(name):
    assert f"`{name}`" in PAGE
