"""`billing check`."""

from __future__ import annotations

import sys
import uuid
from typing import TYPE_CHECKING, NoReturn

import click

from billing_cli.cli.options import source_option
from billing_cli.cli.printing import output_options, print_report
from billing_cli.cli.running import open_settings
from billing_cli.errors import (
    EXIT_CONFIG,
    EXIT_OK,
    EXIT_PARTIAL,
    EXIT_UNAVAILABLE,
    ConfigurationError,
)

if TYPE_CHECKING:
    from billing_cli.cli.printing import Output
    from billing_cli.cli.root import Options
    from billing_cli.features.check.findings import CheckReport

EXIT_CODES = {
    "ok": EXIT_OK,
    "attention": EXIT_PARTIAL,
    "configuration": EXIT_CONFIG,
    "unreachable": EXIT_UNAVAILABLE,
}


@click.command("check")
@source_option
@output_options
@click.pass_obj
def command(options: Options, source_ids: tuple[str, ...], output: Output) -> None:
    """Look at configuration, database and sources before the timer is enabled.

    Asks every source for its oldest and its newest snapshot, and writes nothing anywhere. Ends
    with 0 where all is well (warnings are allowed), 3 where something needs a look, 78 where the
    configuration, the schema or the role's privileges are wrong, and 69 where the database can't
    be reached.

    \b
    Examples:
      billing check
      billing check --source jp-1
      billing check --json
    """
    _show(_report(options, source_ids), output)


def _report(options: Options, source_ids: tuple[str, ...]) -> CheckReport:
    from billing_cli.features.check.configuration_findings import configuration_failure  # noqa: PLC0415
    from billing_cli.features.check.job import check, report_of  # noqa: PLC0415

    run_id = str(uuid.uuid4())
    try:
        settings = open_settings(options, "check", run_id)
    except ConfigurationError as error:
        problems = getattr(error, "problems", (str(error),))
        return report_of([configuration_failure(problem) for problem in problems])
    return check(settings, run_id, source_ids)


def _show(report: CheckReport, output: Output) -> NoReturn:
    from billing_cli.features.check.findings import check_object  # noqa: PLC0415
    from billing_cli.features.check.text import check_parts  # noqa: PLC0415

    print_report(output, report, check_object, check_parts)
    sys.exit(EXIT_CODES[report.outcome])
