"""`billing explain`."""

from __future__ import annotations

import sys
import uuid
from typing import TYPE_CHECKING

import click

from billing_cli.cli.completion import complete_accounts
from billing_cli.cli.options import AccountType, MomentType
from billing_cli.cli.printing import output_options, print_report
from billing_cli.cli.running import open_context
from billing_cli.errors import EXIT_OK
from billing_cli.features.explain.explanation import DEFAULT_LIMIT

if TYPE_CHECKING:
    from datetime import datetime

    from billing_cli.cli.printing import Output
    from billing_cli.cli.root import Options
    from billing_cli.cli.tables import Part
    from billing_cli.features.explain.explanation import Explanation


@click.command("explain")
@click.argument("account", type=AccountType(), shell_complete=complete_accounts, metavar="ACCOUNT")
@click.option(
    "--minute", type=MomentType(), metavar="TIME", help="Only this minute; any time within it."
)
@click.option(
    "--since",
    type=MomentType(),
    metavar="TIME",
    help="The first minute. [default: an hour before the last one with usage]",
)
@click.option("--until", type=MomentType(), metavar="TIME", help="Where to stop, exclusive.")
@click.option(
    "--minutes",
    "has_minutes",
    is_flag=True,
    help="Show how each minute was calculated, after the totals.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=DEFAULT_LIMIT,
    show_default=True,
    metavar="N",
    help="Show at most this many minutes; the totals are of all.",
)
@output_options
@click.pass_obj
def command(
    options: Options,
    account: str,
    minute: datetime | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    has_minutes: bool,
    output: Output,
) -> None:
    """Show what ACCOUNT was charged, and how that was calculated.

    Totals first: bytes, included and rated, amount, by day, node and inbound tag, with the opening
    and the closing balance. With --minutes each minute from the snapshots' totals over restarts,
    corrections and quota to price, ledger entry and balance. ACCOUNT is the account's uuid, a proxy
    uuid that it has or had, or its e-mail address. For a uuid that no account has yet, it is shown
    what waits for one. CSV holds the totals by day, node and inbound tag. Reads only.

    \b
    Examples:
      billing explain 11111111-1111-1111-1111-111111111111
      billing explain 11111111-1111-1111-1111-111111111111 --since 7d --minutes
      billing explain user@example.com --since 2026-04-08T00:00:00Z
      billing explain 11111111-1111-1111-1111-111111111111 --minute 2026-04-08T12:01:30Z
      billing explain 11111111-1111-1111-1111-111111111111 --since 2026-04-08T00:00:00Z --json
    """
    from billing_cli.features.explain.job import explain  # noqa: PLC0415
    from billing_cli.features.explain.objects import explanation_object  # noqa: PLC0415
    from billing_cli.features.explain.text import explain_parts, totals_table  # noqa: PLC0415

    context = open_context(options, "explain", str(uuid.uuid4()), files_checked=False)
    explanation = explain(context, account, minute=minute, since=since, until=until, limit=limit)

    def parts_of(shown: Explanation) -> list[Part]:
        return explain_parts(shown, has_minutes=has_minutes or minute is not None)

    print_report(output, explanation, explanation_object, parts_of, totals_table)
    sys.exit(EXIT_OK)
