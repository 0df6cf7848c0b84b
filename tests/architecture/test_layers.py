"""Rooms import only downwards: the contracts of import-linter in pyproject.toml hold, and name every room."""

from __future__ import annotations

from pathlib import Path

from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[2]


def test_every_import_contract_is_kept(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    broken = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert not broken, capsys.readouterr().out


def test_the_architecture_page_names_every_room():
    page = (ROOT / "deploy" / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = [path for path in (ROOT / "rlhf_cluster").iterdir() if path.name[0] not in "_."]
    missing = [path.name for path in rooms if f"\n  {path.name + '/' * path.is_dir()} " not in page]
    assert not missing, f"deploy/docs/architecture.md, The house: add {', '.join(missing)}"
