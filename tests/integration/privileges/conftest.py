"""Fixtures for privileges: a database as newer accounts services have it, seen by both roles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from billing_cli.database.write_path import STAGING_TABLES
from billing_cli.features.migrate.job import migrate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.postgres import Databases

ADD_ARREARS_SINCE = """
ALTER TABLE public.account_quota_states
  ADD arrears_since timestamptz, ADD period_start timestamptz
"""


@pytest.fixture
def job_role(databases: Databases) -> str:
    """Return the name of the role that runs jobs."""
    return databases.job_role


@pytest.fixture
def job_connection(
    connection: psycopg.Connection[dict[str, Any]], database_url: str, job_url: str, job_role: str
) -> Iterator[psycopg.Connection]:
    """Return a connection of the role that runs jobs; each statement is committed."""
    connection.execute(ADD_ARREARS_SINCE)
    migrate(database_url, grant_to=job_role)
    with psycopg.connect(job_url, autocommit=True) as opened:
        for statement in STAGING_TABLES:
            # Here each statement is a transaction of its own.
            opened.execute(statement.replace("ON COMMIT DROP", "").encode())
        yield opened
