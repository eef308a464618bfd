"""`billing streams`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from billing_cli.cli.listing import any_source_option, show
from billing_cli.cli.printing import output_options

if TYPE_CHECKING:
    from billing_cli.cli.printing import Output
    from billing_cli.cli.root import Options


@click.command("streams")
@any_source_option
@click.option(
    "--unresolved", "is_unresolved_only", is_flag=True, help="Only those without an account."
)
@output_options
@click.pass_obj
def command(
    options: Options, source_ids: tuple[str, ...], is_unresolved_only: bool, output: Output
) -> None:
    """Show the counters of each node: their accounts, and where they stand.

    A stream is unresolved while its sample's uuid is neither an account's uuid nor its proxy
    uuid. What it carries is kept as pending, and charged when the account appears.

    STATE is active, continued (under another name), duplicate (held until an operator decides) or
    ignored (never charged).

    \b
    Examples:
      billing streams --unresolved
      billing streams --source jp-1 --json
    """
    from billing_cli.features.streams.report import (  # noqa: PLC0415
        list_streams,
        streams_object,
        streams_parts,
    )

    show(
        options,
        "streams",
        output,
        lambda context: list_streams(context, source_ids, is_unresolved_only=is_unresolved_only),
        streams_object,
        streams_parts,
    )
