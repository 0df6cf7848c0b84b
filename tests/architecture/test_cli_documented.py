"""The command line's page names every verb, every option, every exit code and every observer."""

from __future__ import annotations

import importlib
from pathlib import Path

import click
import pytest

from rlhf_cluster.cli import failure
from rlhf_cluster.cli.main import VERBS
from rlhf_cluster.driver.observers.build import NAMES

PAGE = (Path(__file__).parents[2] / "deploy" / "docs" / "cli.md").read_text(encoding="utf-8")


def commands() -> list[tuple[str, click.Command]]:
    """("models add", command), ... of all verbs and their subcommands."""
    found: list[tuple[str, click.Command]] = []
    for verb, (place, _) in VERBS.items():
        module_name, _, attribute = place.partition(":")
        command = getattr(importlib.import_module(module_name), attribute)
        if isinstance(command, click.Group):
            found += [(f"{verb} {name}", sub) for name, sub in command.commands.items()]
        else:
            found.append((verb, command))
    return found


@pytest.mark.parametrize(("verb", "command"), commands())
def test_every_verb_is_documented(verb, command):
    assert f"`rlhf {verb}" in PAGE


@pytest.mark.parametrize(("verb", "command"), commands())
def test_every_option_is_documented_and_has_help_or_speaks_for_itself(verb, command):
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.name != "output":
            assert f"`{parameter.opts[-1]}" in PAGE, f"rlhf {verb} {parameter.opts[-1]}"


@pytest.mark.parametrize(
    "code",
    [
        failure.DONE,
        failure.JOB_FAILED,
        failure.USAGE,
        failure.NOT_FOUND,
        failure.AUTH,
        failure.UNAVAILABLE,
        failure.INTERRUPTED,
    ],
)
def test_every_exit_code_is_documented(code):
    assert f"| {code} |" in PAGE


@pytest.mark.parametrize("name", NAMES)
def test_every_observer_is_documented(name):
    assert f"| `{name}` |" in PAGE


@pytest.mark.parametrize(("verb", "command"), commands())
def test_the_short_help_in_the_table_and_the_command_both_exist(verb, command):
    assert command.help
    assert VERBS[verb.split()[0]][1].endswith(".")
