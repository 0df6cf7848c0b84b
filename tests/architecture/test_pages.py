"""What the pages say can be followed: links lead somewhere, jobs are accepted, named tests and verbs exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from rlhf_cluster.cli.main import VERBS
from rlhf_cluster.config.load import check, find, parse
from rlhf_cluster.pipeline.graph import OUTPUTS
from rlhf_cluster.pipeline.load import load_pipelines
from rlhf_cluster.pipeline.settings import PipelineConfig, StageSettings
from rlhf_cluster.rewards.table import BUILT_IN

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "deploy" / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
BLOCK = re.compile(r"^```toml(?: file=\S+)?\n(.*?)^```", re.DOTALL | re.MULTILINE)
NAMED_TEST = re.compile(r"`(tests/[\w/.]+\.py)(?:::(\w+))?`")
COMMAND = re.compile(r"(?:^|`)rlhf ([a-z]+)", re.MULTILINE)

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@pages
def test_every_link_within_the_project_leads_to_a_file(page):
    local = [link for link in LINK.findall(text(page)) if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pages
def test_every_test_that_a_page_names_exists(page):
    for path, name in NAMED_TEST.findall(text(page)):
        assert (ROOT / path).is_file(), path
        assert f"def {name}(" in text(ROOT / path) or not name, f"{path}::{name}"


@pages
def test_every_verb_that_a_page_names_exists(page):
    assert set(COMMAND.findall(text(page))) - VERBS.keys() == set()


@pytest.mark.parametrize(
    ("page", "block"),
    [(page.name, block) for page in PAGES for block in BLOCK.findall(text(page))],
)
def test_every_job_every_part_of_one_and_every_pipeline_is_accepted(page, block, my_lab, monkeypatch):
    monkeypatch.syspath_prepend(my_lab)
    shown = tomllib.loads(block)
    if "stages" in shown:
        file = my_lab / page.replace(".md", ".toml")
        file.write_text(block)
        load_pipelines(file)
        return
    base = {} if "model" in shown else parse(find("word-world"))
    check({**base, **shown}, source=page)


def test_every_built_in_reward_is_on_its_page():
    page = text(ROOT / "deploy" / "docs" / "rewards.md")
    assert [name for name in BUILT_IN if f"| `{name}` |" not in page] == []


def test_every_key_of_a_pipeline_and_every_output_is_on_its_page():
    page = text(ROOT / "deploy" / "docs" / "pipelines.md")
    fields = [*PipelineConfig.model_fields.items(), *StageSettings.model_fields.items()]
    assert [key for name, field in fields if f"| `{(key := field.alias or name)}` |" not in page] == []
    assert [name for name in OUTPUTS if f"| `{name}` |" not in page] == []
