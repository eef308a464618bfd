from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg

from billing_cli.database.schema import HEAD_REVISION, WAIT_FOR_OTHER_MIGRATIONS
from billing_cli.features.migrate.job import Migration, migrate
from tests.support.pgbouncer import pooled

CHECKOUT = Path(__file__).parents[3]

MIGRATE = (
    "import sys; from billing_cli.features.migrate.job import migrate; print(migrate(sys.argv[1]))"
)

LOCKS = """
SELECT count(*) FROM pg_locks
 WHERE locktype = 'advisory'
   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
WAITING = f"{LOCKS} AND NOT granted"


def test_migrations_at_once_wait_for_each_other(empty_database_url: str, tmp_path: Path) -> None:
    """One of them migrates, from any directory; whoever waited finds nothing left to do."""
    with psycopg.connect(empty_database_url, autocommit=True) as holder:
        with holder.transaction():
            holder.execute(WAIT_FOR_OTHER_MIGRATIONS)
            started = [
                start(sys.executable, "-c", MIGRATE, empty_database_url, cwd=tmp_path)
                for _ in range(2)
            ]
            while holder.execute(WAITING).fetchone() != (2,):
                assert [process.poll() for process in started] == [None, None]
        results = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0, 0], results
    told = sorted(output.strip() for output, _ in results)
    assert told[0] == str(Migration(HEAD_REVISION, HEAD_REVISION))
    assert told[1].startswith("Migration(from_revision=None")


def test_a_migration_passes_a_transaction_pooler(empty_database_url: str) -> None:
    """Locks and settings end with the transaction, and no statement is prepared."""
    with pooled(empty_database_url) as url:
        assert migrate(url).from_revision is None
        assert migrate(url) == migrate(url, check=True)
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute(LOCKS).fetchone() == (0,)


def test_the_plain_alembic_command_works_in_a_checkout(empty_database_url: str) -> None:
    """A developer writes and tries migrations with the tool's own commands."""
    alembic = (sys.executable, "-m", "alembic")
    assert run(*alembic, "upgrade", "head", database_url=empty_database_url, cwd=CHECKOUT) == ""
    migrate(empty_database_url, check=True)
    told = run(*alembic, "current", database_url=empty_database_url, cwd=CHECKOUT)
    assert told == f"{HEAD_REVISION} (head)"
    run(*alembic, "downgrade", "base", database_url=empty_database_url, cwd=CHECKOUT)
    assert migrate(empty_database_url).from_revision is None


def run(*command: str, database_url: str | None = None, cwd: Path = CHECKOUT) -> str:
    """Run a command that succeeds, and return what it printed."""
    process = start(*command, database_url=database_url, cwd=cwd)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return output.strip()


def start(
    *command: str, database_url: str | None = None, cwd: Path = CHECKOUT
) -> subprocess.Popen[str]:
    """Start a command, to which the package is at hand whether it is installed or not."""
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    if database_url is not None:
        environment["DATABASE_URL"] = database_url
    return subprocess.Popen(  # noqa: S603 - our own commands
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
