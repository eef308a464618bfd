"""Fixtures for migrations: databases as they are found before the first of them."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

SHARED_SCHEMA = Path(__file__).with_name("shared_schema.sql")


@pytest.fixture
def deployed_database_url(empty_database_url: str) -> str:
    """Return the URI of a database that has the shared tables, with rows, and nothing of ours."""
    with psycopg.connect(empty_database_url) as connection:
        connection.execute(SHARED_SCHEMA.read_bytes())
    return empty_database_url
