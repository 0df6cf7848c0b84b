"""The job file's page holds every key of every settings class, as the code has it today."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[2] / "deploy" / "docs"


def _load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("deploy_docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


generate = _load_generator()
SECTIONS = {section.title: section for section in generate.sections()}


@pytest.mark.parametrize("title", SECTIONS)
def test_every_settings_class_and_every_key_says_what_it_means(title):
    model = SECTIONS[title].model
    silent = [name for name, field in model.model_fields.items() if not field.description and name != "type"]
    assert model.__dict__.get("__doc__"), f"{model.__name__} has no docstring"
    assert not silent, f"{model.__name__}: no docstring under {', '.join(silent)}"


@pytest.mark.parametrize("title", SECTIONS)
def test_every_key_has_its_line_on_the_page(title):
    page = generate.PAGE.read_text(encoding="utf-8")
    _, heading, below = page.partition(f"### {title}\n")
    assert heading, f"deploy/docs/job-file.md has no section {title}: run python deploy/docs/generate.py"
    table = below.partition("\n### ")[0]
    missing = [name for name in SECTIONS[title].model.model_fields if name != "type" and f"| `{name}` |" not in table]
    assert not missing, f"{title} lacks {', '.join(missing)}: run python deploy/docs/generate.py"


def test_the_page_is_what_the_generator_writes():
    page = generate.PAGE.read_text(encoding="utf-8")
    assert page == generate.page(page), "run python deploy/docs/generate.py"


def test_the_sections_reach_what_is_nested_in_unions_and_tuples():
    assert '`[rollout.engine]` with `type = "vllm"`' in SECTIONS
    assert '`[[rewards]]` with `type = "http"`' in SECTIONS
    assert "`[learner.optimizer]`" in SECTIONS
