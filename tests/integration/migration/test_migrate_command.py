"""`billing migrate` on the command line: what it asks, refuses and only tries."""

from __future__ import annotations

import os
import pty
import subprocess
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from billing_cli.database.schema import HEAD_REVISION
from tests.cli.command import PYTHON_PATH, billing, command_line
from tests.support.catalog import schema_of

if TYPE_CHECKING:
    from tests.support.postgres import Databases

SHARED_TABLES = 7


def test_shared_tables_are_not_created_unasked(empty_database_url: str) -> None:
    """A wrong DATABASE_URL gets no tables; the error names the database and the option."""
    done = billing("migrate", "--json", environment={"DATABASE_URL": empty_database_url})
    assert done.code == 78
    message = done.result["error"]["message"]
    assert conninfo_to_dict(empty_database_url)["dbname"] in message
    assert "--create-shared-tables" in message
    assert schema_of(empty_database_url, "public") == []
    done = billing(
        "migrate", "--create-shared-tables", environment={"DATABASE_URL": empty_database_url}
    )
    assert (done.code, len(done.stdout.splitlines())) == (0, 2)


def test_a_database_with_some_shared_tables_is_completed(deployed_database_url: str) -> None:
    """It is the right database, so that nobody has to confirm it."""
    with psycopg.connect(deployed_database_url) as connection:
        connection.execute("DROP TABLE billing_source_sync_state")
    done = billing("migrate", "--json", environment={"DATABASE_URL": deployed_database_url})
    assert done.result["created_tables"] == ["public.billing_source_sync_state"]


@pytest.mark.parametrize(("answer", "code"), [("yes", 0), ("no", 78), ("\x04", 2)])
def test_on_a_terminal_it_asks(empty_database_url: str, answer: str, code: int) -> None:
    """Only a yes creates them."""
    ours, theirs = pty.openpty()
    started = subprocess.Popen(  # noqa: S603 - our own command
        command_line("migrate"),
        env={**PYTHON_PATH, "DATABASE_URL": empty_database_url},
        stdin=theirs,
        stderr=theirs,
        stdout=subprocess.PIPE,
    )
    os.close(theirs)
    shown = b""
    while b"(yes/no) [no]: " not in shown:
        shown += os.read(ours, 1024)
    os.write(ours, f"{answer}\n".encode() if answer.isalpha() else answer.encode())
    started.communicate()
    os.close(ours)
    assert started.returncode == code
    assert bool(schema_of(empty_database_url, "public")) == (code == 0)


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(
    empty_database_url: str, databases: Databases
) -> None:
    """Tables, revision and grants; it needs no --create-shared-tables, as it creates nothing."""
    arguments = ("migrate", "--dry-run", "--grant-to", databases.job_role, "--json")
    done = billing(*arguments, environment={"DATABASE_URL": empty_database_url})
    assert (done.code, done.result["dry_run"]) == (0, True)
    assert (done.result["from_revision"], done.result["to_revision"]) == (None, HEAD_REVISION)
    assert len(done.result["created_tables"]) == SHARED_TABLES
    assert schema_of(empty_database_url, "public") == []
    assert schema_of(empty_database_url, "billing") == []


def test_the_jobs_role_is_told_who_may_migrate(
    deployed_database_url: str, databases: Databases
) -> None:
    """One line: what was refused, whose password is needed, and the command with --grant-to."""
    role = databases.job_role
    databases.job_url(deployed_database_url)
    # Without its password, which is its name here, and so would be masked.
    job_url = make_conninfo(deployed_database_url, user=role)
    done = billing("migrate", environment={"DATABASE_URL": job_url})
    owner = conninfo_to_dict(deployed_database_url)["user"]
    assert done.code == 78
    database = conninfo_to_dict(job_url)["dbname"]
    assert done.stderr == (
        f"Error: role '{role}' may not migrate: permission denied for database {database}; "
        f"connect as '{owner}', with the password of '{owner}', and run "
        f"`billing migrate --grant-to {role}`\n"
    )
