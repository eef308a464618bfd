"""Questions to whoever sits at the terminal."""

from __future__ import annotations

import sys

import click

from billing_cli.errors import UsageError


def is_attended() -> bool:
    """Return whether a person can read a question and answer it."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask(question: str, default: str = "") -> str:
    """Return the answer, or the default for an empty one. Raises UsageError where input ends."""
    # Not click.prompt: it hides which signal ended it.
    click.echo(f"{question} [{default}]: " if default else f"{question}: ", nl=False, err=True)
    answer = sys.stdin.readline()
    if not answer:
        raise UsageError("the input ended before the question was answered")
    return answer.strip() or default


def confirm(question: str) -> bool:
    """Return whether the answer is yes; anything else is no."""
    return ask(f"{question} (yes/no)", "no").lower() in {"y", "yes"}


def ask_secret(question: str) -> str:
    """Return the answer, which is not shown. Raises UsageError where input ends."""
    import getpass  # noqa: PLC0415 - only where a secret is asked for

    try:
        return getpass.getpass(f"{question}: ", stream=sys.stderr).strip()
    except EOFError:
        raise UsageError("the input ended before the question was answered") from None
