"""Objects that another role puts into schema `public` are never run in place of PostgreSQL's own.

With `public` in the search path, a function whose argument types fit better is preferred to the
one in `pg_catalog`; it then runs with the privileges of whoever calls it.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from billing_cli.database.connecting import Database
from billing_cli.database.connection import Session
from billing_cli.features.migrate.job import migrate
from tests.integration.jobs.world import serving_world

TRAP = "RAISE EXCEPTION 'shadowed: it runs as %', current_user"

# Each is preferred to PostgreSQL's own where `public` is searched, for the types that we pass.
SHADOWS = (
    ("unnest(text[])", "SETOF text"),
    ("unnest(uuid[])", "SETOF uuid"),
    ("unnest(bigint[])", "SETOF bigint"),
    ("to_regclass(text)", "regclass"),
    ("now()", "timestamptz"),
    ("set_config(text, text, boolean)", "text"),
    ("current_setting(text)", "text"),
    ("has_table_privilege(text, text)", "boolean"),
    ("date_trunc(text, timestamptz)", "timestamptz"),
    ("jsonb_to_recordset(jsonb)", "SETOF record"),
    ("quote_ident(text)", "text"),
)
SHADOW = """
CREATE FUNCTION public.{signature} RETURNS {result} LANGUAGE plpgsql AS $trap$
BEGIN {trap}; END $trap$
"""
OPERATORS = """
CREATE FUNCTION public.text_equal(text, text) RETURNS boolean LANGUAGE plpgsql AS $trap$
BEGIN {trap}; END $trap$;
CREATE OPERATOR public.= (LEFTARG = text, RIGHTARG = text, FUNCTION = public.text_equal);
CREATE TABLE public.runs (run_id uuid);
CREATE TABLE public.sources (source_id text)
"""


def set_traps(connection: psycopg.Connection[dict[str, Any]]) -> None:
    """Have every new session search `public` first, where another role made objects."""
    name = connection.info.dbname
    connection.execute(f"ALTER DATABASE {name} SET search_path = public, pg_catalog".encode())
    for signature, result in SHADOWS:
        made = SHADOW.format(signature=signature, result=result, trap=TRAP)
        connection.execute(made.encode())
    connection.execute(OPERATORS.format(trap=TRAP).encode())
    with (
        psycopg.connect(f"{connection.info.dsn}", autocommit=True) as other,
        pytest.raises(psycopg.errors.RaiseException, match="shadowed"),
    ):
        other.execute("SELECT unnest('{a}'::text[])")


def test_runs_and_reads_use_no_object_of_schema_public_by_accident(
    connection: psycopg.Connection[dict[str, Any]], database_url: str, job_url: str
) -> None:
    """A run charges as always; every setting is there in reads and in transactions."""
    with serving_world(database_url, job_url) as world:
        (user,) = world.add_users(1)
        world.add_node("jp-1", [user])
        world.flow_until(3)
        set_traps(connection)
        assert world.run_unchecked(world.at(4)).written_minutes > 0
    with Session(Database(job_url)) as session:
        for way in (session.read, session.read_one_state, session.transaction):
            shown = way(lambda one: one.execute("SHOW search_path").fetchone())
            assert shown == ("pg_catalog, pg_temp",)


def test_migrations_use_no_object_of_schema_public_by_accident(
    connection: psycopg.Connection[dict[str, Any]], database_url: str
) -> None:
    """Which may run as a superuser, by the command as by the script."""
    set_traps(connection)
    assert migrate(database_url, check=True).warnings == ()
    connection.execute("DROP SCHEMA billing CASCADE")
    migrate(database_url)
    connection.execute("DROP SCHEMA billing CASCADE")
    script = migrate("", sql=True).script
    assert script is not None
    with psycopg.connect(database_url, autocommit=True) as administrator:
        administrator.execute(script.encode())
