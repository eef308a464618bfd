"""`billing simulate`."""

from __future__ import annotations

import sys
import uuid
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

import click

from billing_cli.cli.completion import complete_accounts
from billing_cli.cli.options import MomentType
from billing_cli.cli.printing import output_options, print_report
from billing_cli.cli.running import open_context
from billing_cli.errors import EXIT_OK, EXIT_PARTIAL, UsageError

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from billing_cli.cli.printing import Output
    from billing_cli.cli.root import Options


@click.command("simulate")
@click.option(
    "--price",
    metavar="DECIMAL",
    help="Price of a byte, in place of the configured one; a profile's own price goes first.",
)
@click.option(
    "--packages",
    "packages_path",
    metavar="FILE",
    help="TOML with a table for each package: price_per_byte or price_per_gib, "
    "included_quota_bytes, region_, line_, peak_ and offpeak_multiplier. What is not given stays "
    "as it is.",
)
@click.option(
    "--since", type=MomentType(), required=True, metavar="TIME", help="First minute of the range."
)
@click.option("--until", type=MomentType(), metavar="TIME", help="End, exclusive. [default: now]")
@click.option(
    "--account",
    "account_uuids",
    type=click.UUID,
    shell_complete=complete_accounts,
    multiple=True,
    metavar="UUID",
    help="Only this account; may be given several times. [default: all]",
)
@output_options
@click.pass_obj
def command(
    options: Options,
    price: str | None,
    packages_path: str | None,
    since: datetime,
    until: datetime | None,
    account_uuids: tuple[UUID, ...],
    output: Output,
) -> None:
    """Show what a range would have cost under other prices, by account and in total.

    Prices the recorded charges again, with the rules of a run; free packages stay free unless the
    file names them. Without another quota the included bytes stay as they were; with one, each
    account begins the range, and each renewal in it, with the whole quota. Writes nothing: `billing
    rerate` charges the difference.

    \b
    Examples:
      billing simulate --price 0.0000000004 --since 2026-04-01T00:00:00Z
      billing simulate --packages may.toml --since 2026-04-01T00:00:00Z \\
        --until 2026-05-01T00:00:00Z --output csv
    """
    from billing_cli.features.simulate.packages import read_packages  # noqa: PLC0415
    from billing_cli.features.simulate.report import (  # noqa: PLC0415
        Question,
        run_simulation,
        simulation_notes,
        simulation_object,
        simulation_parts,
        simulation_table,
    )

    if price is None and packages_path is None:
        raise UsageError("--price or --packages is needed: what is to be different?")
    context = open_context(options, "simulate", str(uuid.uuid4()), files_checked=False)
    question = Question(
        since,
        until or context.clock(),
        None if price is None else _price(price),
        {} if packages_path is None else read_packages(packages_path),
        tuple(str(account) for account in account_uuids),
    )
    simulation = replace(run_simulation(context, question), currency=context.currency)
    print_report(output, simulation, simulation_object, simulation_parts, simulation_table)
    if output != "table":
        for note in simulation_notes(simulation):
            click.echo(note, err=True)
    sys.exit(EXIT_PARTIAL if simulation.problems else EXIT_OK)


def _price(text: str) -> Decimal:
    try:
        price = Decimal(text)
    except InvalidOperation:
        price = Decimal("NaN")
    if not price.is_finite() or price < 0:
        raise UsageError(f"--price {text!r} is not a price, such as 0.0000000005")
    return price
