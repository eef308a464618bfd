"""`billing config`."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

import click

from billing_cli.cli.printing import output_options, print_report
from billing_cli.cli.running import open_settings

if TYPE_CHECKING:
    from billing_cli.cli.printing import Output
    from billing_cli.cli.root import Options


@click.group("config")
def command() -> None:
    """Look at the configuration: its values, and what may stand in its file.

    \b
    Examples:
      billing config show
      billing config schema
    """


@command.command("show")
@click.option(
    "--changed", "is_changed_only", is_flag=True, help="Only values that are not the default."
)
@output_options
@click.pass_obj
def show(options: Options, is_changed_only: bool, output: Output) -> None:
    """Show every value that counts, and where it comes from: environment, file or default.

    Secrets are masked. Where a secret was read by a reference, its origin names the reference.

    \b
    Examples:
      billing config show
      billing config show --changed
      billing config show --json
    """
    from billing_cli.features.config.values import (  # noqa: PLC0415
        effective_values,
        values_object,
        values_parts,
    )

    settings = open_settings(options, "config-show", str(uuid.uuid4()), files_checked=False)
    values = effective_values(settings, is_changed_only=is_changed_only)
    print_report(output, values, values_object, values_parts)


@command.command("schema")
def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors to complete and check it.

    Editors with a TOML language server (Even Better TOML, taplo) read the first line
    `#:schema ./billing.schema.json` of the file.

    \b
    Examples:
      billing config schema > /etc/billing/billing.schema.json
    """
    from billing_cli.features.config.schema import file_schema  # noqa: PLC0415

    click.echo(json.dumps(file_schema(), indent=2))
