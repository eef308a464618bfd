"""`billing usage`."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import click

from billing_cli.cli.completion import complete_accounts
from billing_cli.cli.options import AccountType, MomentType
from billing_cli.cli.printing import output_options, print_report, shows_blocks
from billing_cli.cli.running import open_context

if TYPE_CHECKING:
    from datetime import datetime

    from billing_cli.cli.printing import Output
    from billing_cli.cli.root import Options
    from billing_cli.cli.tables import Part
    from billing_cli.features.usage.report import By, UsageReport

GROUPS: tuple[By, ...] = ("day", "hour", "node", "inbound-tag", "account")


@click.command("usage")
@click.option(
    "--by",
    type=click.Choice(GROUPS),
    default="day",
    show_default=True,
    help="What to sum up by; days and hours are in UTC.",
)
@click.option(
    "--since", type=MomentType(), metavar="TIME", help="First minute. [default: a week before]"
)
@click.option("--until", type=MomentType(), metavar="TIME", help="End, exclusive. [default: now]")
@click.option(
    "--account",
    type=AccountType(),
    metavar="ACCOUNT",
    shell_complete=complete_accounts,
    help="Only this account: its uuid or its e-mail address.",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    metavar="N",
    help="Only the N largest groups; the others are summed up.",
)
@output_options
@click.pass_obj
def command(
    options: Options,
    by: By,
    since: datetime | None,
    until: datetime | None,
    account: str | None,
    top: int | None,
    output: Output,
) -> None:
    """Show bytes and money of a range by day, hour, node, inbound tag or account.

    Bytes are those of the minute buckets, whoever wrote them. Included and rated bytes and the
    amount are those of our charges, corrections included. Where charges were pruned, only bytes are
    shown, and where an account was deleted, only money; a note says so. Reads only.

    \b
    Examples:
      billing usage
      billing usage --by node --since 2026-04-01T00:00:00Z --until 2026-05-01T00:00:00Z
      billing usage --by account --top 20 --output csv
      billing usage --by hour --account user@example.com
    """
    from billing_cli.features.usage.report import (  # noqa: PLC0415
        usage,
        usage_notes,
        usage_object,
        usage_parts,
        usage_table,
    )

    context = open_context(options, "usage", str(uuid.uuid4()), files_checked=False)
    report = usage(context, by, since=since, until=until, account=account, top=top)

    def parts_of(found: UsageReport) -> list[Part]:
        return usage_parts(found, has_bars=shows_blocks())

    print_report(output, report, usage_object, parts_of, usage_table)
    if output == "csv":
        for note in usage_notes(report):
            click.echo(note, err=True)
