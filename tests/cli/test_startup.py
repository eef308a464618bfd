"""What is imported when: nothing heavy for a help page, SQLAlchemy only to migrate."""

from __future__ import annotations

import subprocess
import sys
from functools import cache

import pytest

from tests.cli.command import PYTHON_PATH

HEAVY = {"requests", "urllib3", "psycopg", "pydantic", "pydantic_settings", "structlog"}
MIGRATIONS = {"sqlalchemy", "alembic", "mako"}

# Whatever becomes of the command, its modules are listed last.
LIST_MODULES = """
import atexit, sys
atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr))
from billing_cli.__main__ import main
sys.argv[0] = "billing"
main()
"""


@pytest.mark.parametrize(
    "arguments", [("--help",), ("--version",), ("collect", "--help"), ("migrate", "--help")]
)
def test_help_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    """No HTTP, no database driver, no validation, no logging; so it is there at once."""
    assert not imported(*arguments) & (HEAVY | MIGRATIONS)


def test_wrong_usage_imports_nothing_heavy() -> None:
    """An unknown option is known to be one without reading any configuration."""
    assert not imported("collect", "--nonsense") & (HEAVY | MIGRATIONS)


@pytest.mark.parametrize("command", ["collect", "catch-up", "reconcile", "status"])
def test_only_migrations_import_sqlalchemy(command: str) -> None:
    """A run that comes every minute pays for what it uses alone, even where it fails."""
    modules = imported(command)
    assert "psycopg" in modules
    assert not modules & MIGRATIONS


def test_help_and_status_import_little_beside_the_minute_job() -> None:
    """A third of what `collect` imports is for help, and one and a half of it for `status`."""
    collect = modules_of("collect")
    assert len(modules_of("--help")) <= 0.33 * len(collect)
    assert len(modules_of("status")) <= 1.5 * len(collect)


def test_status_asks_no_exporter() -> None:
    """So it needs no HTTP client."""
    assert not imported("status") & {"requests", "urllib3"}


def imported(*arguments: str) -> set[str]:
    """Return the top-level modules that a command imports where nobody serves its database."""
    return {name.partition(".")[0] for name in modules_of(*arguments)}


@cache
def modules_of(*arguments: str) -> set[str]:
    """Return all modules that a command imports where nobody serves its database."""
    environment = {
        **PYTHON_PATH,
        "DATABASE_URL": "postgresql://postgres@127.0.0.1:1/account",
        "EXPORTER_BASE_URL": "http://127.0.0.1:1",
    }
    finished = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-c", LIST_MODULES, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in finished.stderr, finished.stderr
    return set(finished.stderr.splitlines()[-1].split())
