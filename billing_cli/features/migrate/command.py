"""`billing migrate`."""

from __future__ import annotations

import json
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from billing_cli.cli.asking import confirm, is_attended
from billing_cli.cli.options import json_option
from billing_cli.cli.running import open_settings
from billing_cli.errors import UsageError
from billing_cli.output import require_stdout

if TYPE_CHECKING:
    from billing_cli.cli.root import Options
    from billing_cli.features.migrate.job import Migration


@click.command("migrate")
@click.option("--check", is_flag=True, help="Only verify; exit 78 where something is to be done.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Do everything in this database, roll it back, and say what would be done.",
)
@click.option("--sql", is_flag=True, help="Print the SQL for an empty database, run nothing.")
@click.option(
    "--create-shared-tables",
    is_flag=True,
    help="Create the shared tables in a database that has none of them. [default: ask on a "
    "terminal, refuse elsewhere]",
)
@click.option(
    "--grant-to",
    metavar="ROLE",
    help="Also let this role run the jobs: what they need, and nothing more.",
)
@click.option(
    "--grant-suspend-to",
    metavar="ROLE",
    help="Also let this role run `billing suspend`, which the role of the jobs may not.",
)
@click.option(
    "--grant-seal-to",
    metavar="ROLE",
    help="Also let this role run `billing seal`, which the role of the jobs may not.",
)
@json_option
@click.pass_obj
def command(
    options: Options,
    check: bool,
    dry_run: bool,
    sql: bool,
    create_shared_tables: bool,
    grant_to: str | None,
    grant_suspend_to: str | None,
    grant_seal_to: str | None,
    as_json: bool,
) -> None:
    """Bring the database schema to this version, all of it or nothing.

    Our own tables live in the schema `billing`. The shared tables in `public` are verified where
    they exist. The first migration creates those that are missing; where none exists, which may be
    the wrong database, only with --create-shared-tables. Later ones create none.

    Connect as the owner of the shared tables. The jobs then run as a role of their own, which can
    change no table, delete no row, and touch no entry once it is written: name it by --grant-to,
    now and after every upgrade. With --sql the grants stand at the end of the script.

    --check looks at the present state. --dry-run tries the migration, and holds its locks until it
    is rolled back. --sql prints a script and opens no connection.

    \b
    Examples:
      billing migrate --grant-to billing
      billing migrate --create-shared-tables
      billing migrate --dry-run --grant-to billing
      billing migrate --check
      billing migrate --sql --grant-to billing > billing.sql
    """
    from billing_cli.features.migrate.job import migrate  # noqa: PLC0415 - SQLAlchemy is slow to import

    granting: dict[str, Any] = {
        "grant_to": grant_to,
        "grant_suspend_to": grant_suspend_to,
        "grant_seal_to": grant_seal_to,
    }
    _check_usage(check, dry_run, sql, as_json, is_granting=any(granting.values()))
    if sql:
        click.echo(migrate("", sql=True, **granting).script)
        return
    settings = open_settings(options, "migrate", str(uuid.uuid4()), files_checked=False)
    url = settings.require_database_url().get_secret_value()
    work = partial(migrate, url, check=check, dry_run=dry_run, **granting)
    done = work() if create_shared_tables else _ask_before_creating(work, as_json)
    if not (check or dry_run):
        require_stdout()
    for warning in done.warnings:
        click.echo(f"Warning: {warning}", err=True)
    if as_json:
        click.echo(json.dumps(_migration_object(done, granting)))
    else:
        _print_summary(done, **granting)


def _check_usage(
    check: bool, dry_run: bool, sql: bool, as_json: bool, *, is_granting: bool
) -> None:
    for first, second, is_both in (
        ("--check", "--sql", check and sql),
        ("--check", "--dry-run", check and dry_run),
        ("--dry-run", "--sql", dry_run and sql),
        ("--json", "--sql", as_json and sql),
    ):
        if is_both:
            raise UsageError(f"{first} and {second} exclude each other")
    if check and is_granting:
        raise UsageError("--check changes nothing, so it can't grant anything")


def _ask_before_creating(work: partial[Migration], as_json: bool) -> Migration:
    """Migrate; where all shared tables are missing, ask whoever is at the terminal."""
    from billing_cli.features.migrate.job import NoSharedTablesError  # noqa: PLC0415

    try:
        return work(create_shared_tables=False)
    except NoSharedTablesError as error:
        if as_json or not is_attended() or not confirm(f"{error}.\nCreate them now?"):
            raise
    return work(create_shared_tables=True)


def _migration_object(done: Migration, granting: dict[str, Any]) -> dict[str, Any]:
    return {
        "job": "migrate",
        "status": "ok",
        "error": None,
        "dry_run": done.dry_run,
        "from_revision": done.from_revision,
        "to_revision": done.to_revision,
        "created_tables": list(done.created_tables),
        "granted_to": granting["grant_to"],
        "suspend_granted_to": granting["grant_suspend_to"],
        "seal_granted_to": granting["grant_seal_to"],
        "needless_privileges": list(done.needless_privileges),
        "warnings": list(done.warnings),
    }


def _print_summary(
    done: Migration, grant_to: str | None, grant_suspend_to: str | None, grant_seal_to: str | None
) -> None:
    """Print what was done."""
    if done.dry_run:
        click.echo("dry run: all of the following was rolled back")
    if done.created_tables:
        click.echo(f"created the shared tables {', '.join(done.created_tables)}")
    if done.from_revision == done.to_revision:
        click.echo(f"the schema is at {done.to_revision}, as this version needs it")
    else:
        click.echo(f"migrated from {done.from_revision or 'nothing'} to {done.to_revision}")
    if grant_suspend_to:
        click.echo(f"role {grant_suspend_to} may run billing suspend")
    if grant_seal_to:
        click.echo(f"role {grant_seal_to} may run billing seal")
    if grant_to and not done.needless_privileges:
        click.echo(f"role {grant_to} may do what the jobs need, and nothing more")
    elif grant_to:
        click.echo(f"role {grant_to} may do what the jobs need, and more than that:")
        for privilege in done.needless_privileges:
            click.echo(f"  {privilege}")
