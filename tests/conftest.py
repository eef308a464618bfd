"""Fixtures for all tests: a real PostgreSQL database of its own for each test that asks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.support.postgres import Databases, SessionDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator

SESSION_DIRECTORY = pytest.StashKey[SessionDirectory]()


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    """Return the URI of a migrated database without rows."""
    with databases.database(migrated=True) as url:
        yield url


@pytest.fixture
def job_url(databases: Databases, database_url: str) -> str:
    """Return the URI of `database_url` for the role that runs jobs and may do nothing more."""
    return databases.job_url(database_url)


@pytest.fixture
def empty_database_url(databases: Databases) -> Iterator[str]:
    """Return the URI of a database in which nothing was ever created."""
    with databases.database(migrated=False) as url:
        yield url


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """Return a connection to `database_url` that commits each statement; rows are dicts."""
    with psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as opened:
        yield opened


@pytest.fixture(scope="session")
def databases(pytestconfig: pytest.Config) -> Iterator[Databases]:
    """Return what makes databases on the session's server, which the first such test starts."""
    worker = getattr(pytestconfig, "workerinput", None)
    if worker is None:
        made = Databases(pytestconfig.stash[SESSION_DIRECTORY].path, "main")
    else:
        made = Databases(Path(worker["session_directory"]), worker["workerid"])
    yield made
    made.close()


def pytest_configure(config: pytest.Config) -> None:
    """Make the session's directory in the process that outlives all workers."""
    if not hasattr(config, "workerinput"):
        config.stash[SESSION_DIRECTORY] = SessionDirectory(in_memory=True)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of pytest-xdist where the session's directory is."""
    node.workerinput["session_directory"] = str(node.config.stash[SESSION_DIRECTORY].path)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the server, and remove all that it held."""
    if SESSION_DIRECTORY in config.stash:
        config.stash[SESSION_DIRECTORY].remove()
