"""`billing status`."""

from __future__ import annotations

import math
import sys
import time
import uuid
from typing import TYPE_CHECKING, Any, NoReturn

import click

from billing_cli.cli.printing import output_options, print_report, shows_blocks, terminal, text_of
from billing_cli.cli.running import open_context
from billing_cli.cli.tables import Line
from billing_cli.errors import (
    EXIT_OK,
    EXIT_PARTIAL,
    BillingError,
    InterruptedBySignalError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from billing_cli.cli.printing import Output
    from billing_cli.cli.root import Options
    from billing_cli.features.status.result import StatusReport

DEFAULT_MAX_LAG_SECONDS = 300.0
DEFAULT_WATCH_SECONDS = 5.0

# To the upper left corner; and from the cursor on, nothing.
HOME, REST_OF_LINE, REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


class SecondsType(click.FloatRange):
    """A number of seconds, without `nan` and `inf`: no lag would be longer than that."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number, or fail as a usage error."""
        seconds = float(super().convert(value, param, ctx))
        if not math.isfinite(seconds):
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return seconds


@click.command("status")
@click.option(
    "--max-lag",
    "max_lag_seconds",
    type=SecondsType(min=0),
    default=DEFAULT_MAX_LAG_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="A source further behind than this is a warning.",
)
@click.option(
    "--watch",
    "watch_seconds",
    is_flag=False,
    flag_value=DEFAULT_WATCH_SECONDS,
    type=SecondsType(min=0.1),
    metavar="[SECONDS]",
    help="Show it again and again, on a terminal, until Ctrl-C. [default: every 5 seconds]",
)
@output_options
@click.pass_obj
def command(
    options: Options, max_lag_seconds: float, watch_seconds: float | None, output: Output
) -> None:
    """Show what needs attention, sources, lag, gaps, what is billed today, the last runs.

    Reads the database only, and asks no exporter. What is most serious comes first, each finding
    with the command that deals with it. Exits with 3 where anything is failed or a warning: a
    source failed, lags behind, has nothing new, lost history, or holds implausible deltas, or the
    last audit found a violation.

    SUCCESS and ATTEMPT are how long ago the source last answered well, and was last asked. Gaps
    are counted until they are resolved; HELD waits for `billing held`, UNRESOLVED counters for
    their accounts. On a terminal, BYTES 1H and LAG 1H show the last hour in steps of five minutes.
    NO_COLOR switches colours off.

    \b
    Examples:
      billing status
      billing status --watch
      billing status --max-lag 600 >/dev/null || echo something needs attention
      billing status --json
    """
    from billing_cli.features.status.job import status  # noqa: PLC0415
    from billing_cli.features.status.result import status_object  # noqa: PLC0415
    from billing_cli.features.status.text import status_parts  # noqa: PLC0415

    if watch_seconds is not None and (output != "table" or terminal() is None):
        raise UsageError("--watch needs a terminal, and shows neither CSV nor JSON")
    context = open_context(options, "status", str(uuid.uuid4()), files_checked=False)

    def read() -> StatusReport:
        return status(context, max_lag_seconds=max_lag_seconds)

    if watch_seconds is not None:
        _watch(read, watch_seconds)
    report = read()
    if output == "table":
        click.echo(_text_of(report))
    else:
        print_report(output, report, status_object, status_parts)
    sys.exit(EXIT_PARTIAL if report.needs_attention else EXIT_OK)


def _watch(read: Callable[[], StatusReport], seconds: float) -> NoReturn:
    """Show the state again and again, also while the database is away, until a signal comes."""
    try:
        click.clear()
        while True:
            try:
                text = _text_of(read())
            except BillingError as error:
                text = text_of([Line(f"Error: {error}", "error")], terminal())
            lines = [f"every {seconds:g} s, Ctrl-C ends", "", *text.splitlines(), ""]
            shown = "".join(f"{line}{REST_OF_LINE}\n" for line in lines)
            click.echo(f"{HOME}{shown}{REST_OF_SCREEN}", nl=False)
            time.sleep(seconds)
    except InterruptedBySignalError as ended:
        sys.exit(ended.exit_code)


def _text_of(report: StatusReport) -> str:
    from billing_cli.features.status.text import status_parts  # noqa: PLC0415

    shown_on = terminal()
    return text_of(status_parts(report, has_sparklines=shows_blocks()), shown_on)
