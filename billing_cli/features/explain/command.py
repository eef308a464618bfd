"""`billing explain`."""

from __future__ import annotations

import json
import sys
import uuid
from typing import TYPE_CHECKING

import click

from billing_cli.cli.running import MomentType, json_option, open_context
from billing_cli.errors import EXIT_OK
from billing_cli.features.explain.explanation import DEFAULT_LIMIT

if TYPE_CHECKING:
    from datetime import datetime

    from billing_cli.cli.root import Options


@click.command("explain")
@click.argument("account", type=click.UUID, metavar="ACCOUNT")
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
    "--limit",
    type=click.IntRange(min=1),
    default=DEFAULT_LIMIT,
    show_default=True,
    metavar="N",
    help="Tell at most this many minutes.",
)
@json_option
@click.pass_obj
def command(
    options: Options,
    account: uuid.UUID,
    minute: datetime | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    as_json: bool,
) -> None:
    """Tell what ACCOUNT was charged for, minute by minute.

    From the snapshots' totals over restarts, corrections and quota to price, ledger entry and
    balance. ACCOUNT is the account's uuid, or a proxy uuid that it has or had. Reads only.

    \b
    Examples:
      billing explain 11111111-1111-1111-1111-111111111111
      billing explain 11111111-1111-1111-1111-111111111111 --minute 2026-04-08T12:01:30Z
      billing explain 11111111-1111-1111-1111-111111111111 --since 2026-04-08T00:00:00Z --json
    """
    from billing_cli.features.explain.explanation import explanation_object  # noqa: PLC0415
    from billing_cli.features.explain.job import explain  # noqa: PLC0415
    from billing_cli.features.explain.text import explain_text  # noqa: PLC0415

    context = open_context(options, "explain", str(uuid.uuid4()), files_checked=False)
    explanation = explain(
        context, str(account), minute=minute, since=since, until=until, limit=limit
    )
    text = json.dumps(explanation_object(explanation)) if as_json else explain_text(explanation)
    click.echo(text)
    sys.exit(EXIT_OK)
