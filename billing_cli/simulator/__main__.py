"""`python -m billing_cli.simulator`: a demo, and the parts that a trial of one's own needs."""

from __future__ import annotations

import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import click
import psycopg

from billing_cli.simulator.accounts import save_users
from billing_cli.simulator.demo import DemoError, demo
from billing_cli.simulator.exporter import ACCOUNTS, accounts_of, run_exporters
from billing_cli.simulator.postgres import (
    EmbeddedPostgresError,
    placed_elsewhere,
    start_postgres,
    stop_postgres,
)
from billing_cli.simulator.server import ListenError

accounts_option = click.option(
    "--accounts", default=ACCOUNTS, show_default=True, help="How many accounts use each node."
)


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


@cli.command("postgres")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
def postgres_command(directory: Path) -> None:
    """Start a PostgreSQL server in a directory, in the background, and print its URL."""
    try:
        elsewhere = placed_elsewhere(directory)
        server = start_postgres(directory)
    except EmbeddedPostgresError as error:
        raise click.ClickException(str(error)) from None
    if elsewhere is not None:
        click.echo(f"the database is in {elsewhere}, to which {directory} is a link", err=True)
    click.echo(server.url())


@cli.command("exporter")
@click.option("--node", "nodes", multiple=True, default=("jp-1",), help="A node to simulate.")
@click.option("--bind", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="The port to listen on.",
)
@click.option(
    "--history-minutes", default=10, show_default=True, help="How old the first snapshot is."
)
@accounts_option
def exporter_command(
    nodes: tuple[str, ...], bind: str, port: int, history_minutes: int, accounts: int
) -> None:
    """Serve exporters whose counters grow, each under its own path, until Ctrl-C."""
    try:
        with suppress(KeyboardInterrupt):
            run_exporters(
                nodes,
                accounts,
                timedelta(minutes=history_minutes),
                (bind, port),
                lambda url: click.echo(f"serving {url}"),
            )
    except ListenError as error:
        raise click.ClickException(f"{error}; choose another by --port or --bind") from None


@cli.command("accounts")
@click.option("--database-url", envvar="DATABASE_URL", required=True, help="Where they are added.")
@accounts_option
def accounts_command(database_url: str, accounts: int) -> None:
    """Add the accounts that use the simulated nodes, as accounts.svc.plus does; print them."""
    users = accounts_of(accounts)
    try:
        with psycopg.connect(database_url, connect_timeout=10) as connection:
            save_users(connection, users)
    except psycopg.Error as error:
        raise click.ClickException(_advice(error)) from None
    for user in users:
        click.echo(user.uuid)


@cli.command("stop")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
def stop_command(directory: Path) -> None:
    """Stop the server of a directory, such as of a demo with --keep."""
    try:
        stop_postgres(directory)
    except EmbeddedPostgresError as error:
        raise click.ClickException(str(error)) from None


def _advice(error: psycopg.Error) -> str:
    """Return what to do about a failure of the database, without its connection string."""
    if isinstance(error, psycopg.errors.UndefinedTable):
        return "there is no table of accounts yet: run `billing migrate --create-shared-tables`"
    if error.sqlstate is None and isinstance(error, psycopg.ProgrammingError):
        return "DATABASE_URL is no connection string, such as postgresql://user@host/database"
    return f"{str(error).splitlines()[0]}; check that the server runs, and DATABASE_URL"


if __name__ == "__main__":
    cli(prog_name="python -m billing_cli.simulator")
