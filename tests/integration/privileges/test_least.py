"""The grants are what the store's statements need: none is missing, and none is idle."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from billing_cli.database.grants import GRANTS, OPTIONAL_GRANTS
from tests.integration.privileges.statements import statements

if TYPE_CHECKING:
    from billing_cli.database.grants import Grant

STATEMENTS = statements()


def test_the_jobs_role_may_run_each_statement(job_connection: psycopg.Connection) -> None:
    """What a statement needs beyond billing_cli/database/grants.py is to be granted there."""
    refused = {}
    for name, text in STATEMENTS.items():
        try:
            job_connection.execute(f"EXPLAIN {text}".encode())
        except InsufficientPrivilege as error:
            refused[name] = str(error)
    assert refused == {}


def test_each_grant_is_needed(
    connection: psycopg.Connection[dict[str, Any]],
    job_connection: psycopg.Connection,
    job_role: str,
) -> None:
    """Taken away, column by column, each of them stops some statement of a job."""
    idle = [
        f"{one.privilege} {column} ON {one.table}"
        for one in (*GRANTS, *OPTIONAL_GRANTS)
        for column in one.columns or ("",)
        if not is_needed(connection, job_connection, job_role, one, column)
    ]
    assert idle == []


def test_no_statement_deletes() -> None:
    """Facts stay; what is to go, its owner removes."""
    assert len(STATEMENTS) > 50
    assert [name for name, text in STATEMENTS.items() if re.search(r"\bDELETE FROM\b", text)] == []


def is_needed(
    connection: psycopg.Connection[dict[str, Any]],
    job_connection: psycopg.Connection,
    job_role: str,
    grant: Grant,
    column: str,
) -> bool:
    """Tell whether a statement fails without the privilege, which is given back afterwards."""
    privilege = sql.SQL(grant.privilege + (f" ({column})" if column else ""))
    table, role = sql.Identifier(*grant.table.split(".")), sql.Identifier(job_role)
    connection.execute(sql.SQL("REVOKE {} ON {} FROM {}").format(privilege, table, role))
    bare_name = re.compile(rf"\b{grant.table.partition('.')[2]}\b")
    try:
        for text in STATEMENTS.values():
            if bare_name.search(text):
                job_connection.execute(f"EXPLAIN {text}".encode())
    except InsufficientPrivilege:
        return True
    finally:
        connection.execute(sql.SQL("GRANT {} ON {} TO {}").format(privilege, table, role))
    return False
