"""Manual pages and shell completion, as the wheel brings them."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from billing_cli.cli.root import cli
from tools.reference import context_of, leaves

if TYPE_CHECKING:
    from collections.abc import Iterator

COMPLETIONS: dict[str, type[ShellComplete]] = {
    "bash-completion/completions/billing": BashComplete,
    "zsh/site-functions/_billing": ZshComplete,
    "fish/vendor_completions.d/billing.fish": FishComplete,
}


def files() -> dict[str, str]:
    """Return each file's content by its path in share/."""
    found = {
        path: kind(cli, {}, "billing", "_BILLING_COMPLETE").source()
        for path, kind in COMPLETIONS.items()
    }
    found["man/man1/billing.1"] = manual("billing", cli)
    for name, command in leaves(cli, ""):
        full_name = f"billing-{name.replace(' ', '-')}"
        found[f"man/man1/{full_name}.1"] = manual(full_name, command)
    return found


def manual(name: str, command: click.Command) -> str:
    """Return a manual page, in the macros of man(7)."""
    context = context_of(command, name.replace("-", " ", 1))
    summary, *rest = inspect.cleandoc(command.help or "").split("\n\n")
    usage = command.get_usage(context).replace("Usage: ", "")
    lines = [f'.TH "{name.upper()}" 1 "" "billing" "billing manual"', ".SH NAME"]
    lines += [f"{name} \\- {quoted(' '.join(summary.split()))}", ".SH SYNOPSIS", quoted(usage)]
    lines += [".SH DESCRIPTION", *(line for text in rest for line in paragraph(text))]
    records = [param.get_help_record(context) for param in command.get_params(context)]
    lines += [".SH OPTIONS"]
    for option, meaning in filter(None, records):
        lines += [".TP", f"\\fB{quoted(option)}\\fP", quoted(" ".join(meaning.split()))]
    if isinstance(command, click.Group):
        lines += [".SH COMMANDS", *overview(command, name.partition("-")[2])]
    return "\n".join(lines) + "\n"


def overview(group: click.Group, group_name: str) -> Iterator[str]:
    """Yield a line for each command within a group."""
    for name, command in leaves(group, group_name):
        if command is group:
            continue
        short = quoted(command.get_short_help_str(200))
        yield from (".TP", f"\\fBbilling-{name.replace(' ', '-')}\\fP(1)", short)


def paragraph(text: str) -> Iterator[str]:
    """Yield a paragraph; one that keeps its lines is set as an example."""
    if text.startswith("\b"):
        yield from (".PP", ".nf", *(quoted(line) for line in text.splitlines()[1:]), ".fi")
    else:
        yield from (".PP", quoted(" ".join(text.split())))


def quoted(text: str) -> str:
    """Return a text without a meaning for troff."""
    text = text.replace("\\", "\\\\").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", text)
