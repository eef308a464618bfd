"""What the commands share that only show what is stored."""

from __future__ import annotations

import json
import sys
import uuid
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from billing_cli.cli.running import open_context
from billing_cli.errors import EXIT_OK

if TYPE_CHECKING:
    from collections.abc import Callable

    from billing_cli.cli.root import Options
    from billing_cli.jobs.context import JobContext

Report = TypeVar("Report")

any_source_option = click.option(
    "--source",
    "source_ids",
    multiple=True,
    metavar="ID",
    help="Only this source, enabled or not; may be given several times. [default: all]",
)


def show(
    options: Options,
    job: str,
    as_json: bool,
    work: Callable[[JobContext], Report],
    object_of: Callable[[Report], dict[str, Any]],
    text_of: Callable[[Report], str],
) -> NoReturn:
    """Read a report, print it as one JSON object or as text, and exit."""
    report = work(open_context(options, job, str(uuid.uuid4()), files_checked=False))
    click.echo(json.dumps(object_of(report)) if as_json else text_of(report))
    sys.exit(EXIT_OK)
