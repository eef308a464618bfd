"""`billing check`."""

from __future__ import annotations

import json
import os
import sys
import uuid
from typing import TYPE_CHECKING, NoReturn

import click

from billing_cli.cli.running import json_option, open_settings, source_option
from billing_cli.errors import (
    EXIT_CONFIG,
    EXIT_OK,
    EXIT_PARTIAL,
    EXIT_UNAVAILABLE,
    ConfigurationError,
)

if TYPE_CHECKING:
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
@json_option
@click.pass_obj
def command(options: Options, source_ids: tuple[str, ...], as_json: bool) -> None:
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
    _show(_report(options, source_ids), as_json=as_json)


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


def _show(report: CheckReport, *, as_json: bool) -> NoReturn:
    from billing_cli.cli.text import plain  # noqa: PLC0415
    from billing_cli.features.check.findings import check_object  # noqa: PLC0415
    from billing_cli.features.check.text import check_text  # noqa: PLC0415

    if as_json:
        click.echo(json.dumps(check_object(report)))
    else:
        has_colors = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        click.echo(check_text(report, click.style if has_colors else plain))
    sys.exit(EXIT_CODES[report.outcome])
