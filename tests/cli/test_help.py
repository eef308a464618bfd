"""The help pages teach: each has examples, and each example is a command that exists."""

from __future__ import annotations

import inspect
import re
import shlex

import click
import pytest
from click.testing import CliRunner

from billing_cli.cli.root import SECTIONS, SUMMARIES, cli
from tools.reference import leaves

# An example may go on in the next line, and ends where the shell takes over.
EXAMPLE = re.compile(r"^ +billing ((?:[^\n|>\\]|\\\n)+)", re.MULTILINE)


LEAVES = dict(leaves(cli, ""))


def examples(name: str) -> list[str]:
    """Return the examples of a help page, without the program's name."""
    text = inspect.cleandoc(LEAVES[name].help or "")
    return [one.replace("\\\n", " ").strip() for one in EXAMPLE.findall(text)]


def test_every_command_is_looked_at() -> None:
    """Also those within another, and those that have others within."""
    assert {name.split()[0] for name in LEAVES} == set(SUMMARIES)
    assert {"held release", "seal", "seal keygen"} <= LEAVES.keys()


@pytest.mark.parametrize("name", LEAVES)
def test_a_help_page_has_examples_that_are_right(name: str) -> None:
    """Of this command, with options that it has: unknown ones are told before the help is shown."""
    found = examples(name)
    assert found
    for example in found:
        assert example.startswith(name), example
        shown = CliRunner().invoke(cli, [*shlex.split(example), "--help"])
        assert shown.exit_code == 0, shown.output


@pytest.mark.parametrize("name", LEAVES)
def test_every_option_says_what_it_does(name: str) -> None:
    """An option without words would be a riddle."""
    silent = [
        option.name
        for option in LEAVES[name].params
        if isinstance(option, click.Option) and not option.help
    ]
    assert silent == []


def test_the_first_page_lists_every_command_by_purpose_and_every_exit_code() -> None:
    """It is written by hand, so that no subcommand is imported for it."""
    shown = CliRunner().invoke(cli, ["--help"]).output
    for section, summaries in SECTIONS.items():
        listed = shown.partition(f"\n{section}:\n")[2].partition("\n\n")[0]
        assert re.findall(r"^  ([a-z-]+) ", listed, re.MULTILINE) == list(summaries)
    for code in ("0 done", "1 failed", "2 usage", "3 partial", "69 ", "74 ", "75 ", "78 ", "128+n"):
        assert code in " ".join(shown.split())
