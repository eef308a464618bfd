"""`billing migrate`."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

import click

from billing_cli.cli.running import json_option, open_settings
from billing_cli.errors import UsageError

if TYPE_CHECKING:
    from billing_cli.cli.root import Options
    from billing_cli.features.migrate.job import Migration


@click.command("migrate")
@click.option("--check", is_flag=True, help="Only verify; exit 78 where something is to be done.")
@click.option("--sql", is_flag=True, help="Print the SQL for an empty database, run nothing.")
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
    sql: bool,
    grant_to: str | None,
    grant_suspend_to: str | None,
    grant_seal_to: str | None,
    as_json: bool,
) -> None:
    """Bring the database schema to this version, all of it or nothing.

    Our own tables live in the schema `billing`. The shared tables in `public` are created only
    where they are missing, as in a fresh developer database, and verified where they exist.

    Connect as the owner of the shared tables. The jobs then run as a role of their own, which can
    change no table, delete no row, and touch no entry once it is written: name it by --grant-to,
    now and after every upgrade. With --sql the grants stand at the end of the script.

    \b
    Examples:
      billing migrate --grant-to billing
      billing migrate --check
      billing migrate --sql --grant-to billing > billing.sql
    """
    from billing_cli.features.migrate.job import migrate  # noqa: PLC0415 - SQLAlchemy is slow to import

    if check and sql:
        raise UsageError("--check and --sql exclude each other")
    roles = {
        "grant_to": grant_to,
        "grant_suspend_to": grant_suspend_to,
        "grant_seal_to": grant_seal_to,
    }
    if check and any(roles.values()):
        raise UsageError("--check changes nothing, so it can't grant anything")
    if sql:
        click.echo(migrate("", sql=True, check=False, **roles).script)
        return
    settings = open_settings(options, "migrate", str(uuid.uuid4()), files_checked=False)
    url = settings.require_database_url().get_secret_value()
    done = migrate(url, check=check, sql=False, **roles)
    for warning in done.warnings:
        click.echo(f"Warning: {warning}", err=True)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "job": "migrate",
                    "status": "ok",
                    "error": None,
                    "from_revision": done.from_revision,
                    "to_revision": done.to_revision,
                    "created_tables": list(done.created_tables),
                    "granted_to": grant_to,
                    "suspend_granted_to": grant_suspend_to,
                    "seal_granted_to": grant_seal_to,
                    "needless_privileges": list(done.needless_privileges),
                    "warnings": list(done.warnings),
                }
            )
        )
    else:
        _tell(done, grant_to, grant_suspend_to, grant_seal_to)


def _tell(
    done: Migration, grant_to: str | None, grant_suspend_to: str | None, grant_seal_to: str | None
) -> None:
    """Tell a person what was done."""
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
