"""What the commands share that only show what is stored."""

from __future__ import annotations

import sys
import uuid
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from billing_cli.cli.completion import complete_sources
from billing_cli.cli.printing import print_report
from billing_cli.cli.running import open_context
from billing_cli.errors import EXIT_OK

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from billing_cli.cli.printing import Output
    from billing_cli.cli.root import Options
    from billing_cli.cli.tables import Part
    from billing_cli.jobs.context import JobContext

Report = TypeVar("Report")

any_source_option = click.option(
    "--source",
    "source_ids",
    multiple=True,
    metavar="ID",
    shell_complete=complete_sources,
    help="Only this source, enabled or not; may be given several times. [default: all]",
)


def show(
    options: Options,
    job: str,
    output: Output,
    work: Callable[[JobContext], Report],
    object_of: Callable[[Report], dict[str, Any]],
    parts_of: Callable[[Report], Sequence[Part]],
) -> NoReturn:
    """Read a report, print it as a table, as CSV or as one JSON object, and exit."""
    report = work(open_context(options, job, str(uuid.uuid4()), files_checked=False))
    print_report(output, report, object_of, parts_of)
    sys.exit(EXIT_OK)
