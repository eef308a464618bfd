"""`billing sources`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from billing_cli.cli.completion import complete_sources
from billing_cli.cli.listing import show
from billing_cli.cli.options import dry_run_option, json_option, reason_option
from billing_cli.cli.printing import output_options
from billing_cli.cli.running import run_job

if TYPE_CHECKING:
    from billing_cli.cli.printing import Output
    from billing_cli.cli.root import Options


@click.group("sources")
def command() -> None:
    """List the sources, move one to another name, or accept its new streams.

    \b
    Examples:
      billing sources list
      billing sources move jp-1 tokyo-1 --dry-run
      billing sources move jp-1 prod:tokyo-1.svc.plus --same-counters
      billing sources accept jp-1 --reason 'a new tag for each of 300 devices'
    """


@command.command("list")
@output_options
@click.pass_obj
def list_command(options: Options, output: Output) -> None:
    """Show each source: its state, its node, its watermark and its lag.

    First those of the configuration, in its order; then those that were collected once and are no
    longer configured. STATE is ok, failed (the last attempt), behind (by more than five minutes),
    new (nothing collected yet), disabled or removed. Reads the database only, and asks no exporter;
    `billing status` says what to do.

    \b
    Examples:
      billing sources list
      billing sources list --output csv
    """
    from billing_cli.features.sources.listing import (  # noqa: PLC0415
        list_sources,
        sources_object,
        sources_parts,
    )

    show(options, "sources-list", output, list_sources, sources_object, sources_parts)


@command.command("move")
@click.argument("old", metavar="OLD", shell_complete=complete_sources)
@click.argument("new", metavar="NEW", shell_complete=complete_sources)
@click.option(
    "--same-counters",
    "is_same_counters",
    is_flag=True,
    help="The node has another id now, and its counters go on.",
)
@dry_run_option
@json_option
@click.pass_obj
def move_command(
    options: Options, old: str, new: str, is_same_counters: bool, dry_run: bool, as_json: bool
) -> None:
    """Let source NEW go on where source OLD stands.

    For a source that was given another source_id, and for a node that another configured source
    collects from now on. Watermark, counters, plausibility credit and gaps move along: no byte is
    charged twice, and none is skipped. NEW must be configured, and never have been collected.

    With --same-counters the node itself was given another node_id or env while its counters went
    on. NEW is then a source whose expected_node_id is the new id, which may be OLD itself, or
    the new id as ENV:NODE_ID. Only say so where you know it: where the counters are other ones,
    traffic is charged wrongly. A node that the new id had before keeps its own. No other machine
    can have the former id from then on.

    Charges nothing. Ends with 75 where a run holds one of the sources: try again.

    \b
    Examples:
      billing sources move jp-1 tokyo-1 --dry-run
      billing sources move jp-1 tokyo-1
      billing sources move jp-1 prod:tokyo-1.svc.plus --same-counters
    """
    from billing_cli.features.sources.job import JOB, move_source  # noqa: PLC0415
    from billing_cli.features.sources.text import move_parts  # noqa: PLC0415

    run_job(
        options,
        JOB,
        as_json,
        lambda context: move_source(
            context, old, new, is_same_counters=is_same_counters, dry_run=dry_run
        ),
        dry_run=dry_run,
        text_of=move_parts,
        files_checked=False,
    )


@command.command("accept")
@click.argument("source_id", metavar="ID", shell_complete=complete_sources)
@reason_option
@dry_run_option
@json_option
@click.pass_obj
def accept_command(
    options: Options, source_id: str, reason: str, dry_run: bool, as_json: bool
) -> None:
    """Let one run of a source pass its limits of streams.

    For a source that fails with `too_many_streams` although its streams are real. The next run
    that is above max_streams_per_account, max_new_streams_per_hour or
    max_unresolved_streams_per_hour stores them, and uses this up; what it brought does not count
    against the hour after it. Unused, it expires after 24 hours. Where an account keeps that many
    streams, raise the limit for the source instead. The limits of bytes hold as before.

    Charges nothing. Ends with 75 where a run holds the source: try again.

    \b
    Examples:
      billing sources accept jp-1 --reason 'a new tag for each of 300 devices' --dry-run
      billing sources accept jp-1 --reason 'a new tag for each of 300 devices'
    """
    from billing_cli.features.sources.accept import JOB, accept_source  # noqa: PLC0415
    from billing_cli.features.sources.text import accept_parts  # noqa: PLC0415

    run_job(
        options,
        JOB,
        as_json,
        lambda context: accept_source(context, source_id, reason, dry_run=dry_run),
        dry_run=dry_run,
        text_of=accept_parts,
        files_checked=False,
    )
