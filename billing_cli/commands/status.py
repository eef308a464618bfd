"""`billing status`."""

from __future__ import annotations

import json
import sys
import uuid
from typing import TYPE_CHECKING

import click

from billing_cli.commands.running import json_option, open_context
from billing_cli.errors import EXIT_OK, EXIT_PARTIAL, BillingError

if TYPE_CHECKING:
    from billing_cli.commands.root import Options

DEFAULT_MAX_LAG_SECONDS = 300.0


@click.command("status")
@click.option(
    "--max-lag",
    "max_lag_seconds",
    type=click.FloatRange(min=0),
    default=DEFAULT_MAX_LAG_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="A source further behind than this needs a look.",
)
@json_option
@click.pass_obj
def command(options: Options, max_lag_seconds: float, as_json: bool) -> None:
    """Show sources, watermarks, lag, gaps and the last runs.

    Reads the database only. Exits with 3 where a source needs a look: it failed, lags behind,
    has nothing new, lost history, or holds implausible deltas.
    """
    from billing_cli.core.status import status_object  # noqa: PLC0415
    from billing_cli.jobs.status import status  # noqa: PLC0415
    from billing_cli.report.text import status_text  # noqa: PLC0415

    try:
        context = open_context(options, "status", str(uuid.uuid4()), files_checked=False)
        report = status(context, max_lag_seconds=max_lag_seconds)
    except BillingError as error:
        if not as_json:
            raise
        click.echo(json.dumps({"job": "status", "status": "error", "error": str(error)}))
        sys.exit(error.exit_code)
    click.echo(json.dumps(status_object(report)) if as_json else status_text(report))
    sys.exit(EXIT_PARTIAL if report.needs_attention else EXIT_OK)
