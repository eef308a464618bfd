"""The option that takes snapshots from a file, and what a terminal sees of the reading."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from billing_cli.jobs.fetching import FromFile

MEBIBYTE = 1024 * 1024

from_file_option = click.option(
    "--from-file",
    "file_path",
    metavar="FILE",
    help="Take the snapshots from this file in place of the exporters; - is stdin.",
)


def file_of(path: str | None, *, is_shown: bool) -> FromFile | None:
    """Return the file to read, if any; with `is_shown` a terminal sees how far it is read."""
    if path is None:
        return None
    from billing_cli.jobs.fetching import FromFile  # noqa: PLC0415

    def show(read_bytes: int) -> None:
        click.echo(f"\rread {read_bytes / MEBIBYTE:.0f} MiB", nl=False, err=True)

    return FromFile(path, show if is_shown else None)
