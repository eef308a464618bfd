"""`python -m billing_cli.simulator demo`: what `make demo` runs."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from billing_cli.simulator.demo import DemoError, demo
from billing_cli.simulator.postgres import EmbeddedPostgresError, stop_postgres


@click.group()
def cli() -> None:
    """Simulate a fleet of exporters."""


@cli.command("demo")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the database in this directory, and leave its server running for a look.",
)
def demo_command(keep: Path | None) -> None:
    """Bill half an hour of simulated traffic, and compare with the truth."""
    try:
        is_right = demo(keep)
    except (DemoError, EmbeddedPostgresError) as error:
        raise click.ClickException(str(error)) from None
    sys.exit(0 if is_right else 1)


@cli.command("stop")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
def stop_command(directory: Path) -> None:
    """Stop the server that a demo with --keep left running."""
    try:
        stop_postgres(directory)
    except EmbeddedPostgresError as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    cli(prog_name="python -m billing_cli.simulator")
