"""Defaults that a role or database may have: what is billed does not depend on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from tests.integration.jobs.stories import an_unknown_uuid_is_reset

if TYPE_CHECKING:
    from tests.integration.jobs.world import World

DEFAULTS = (
    "default_transaction_isolation = 'serializable'",
    "TimeZone = 'Asia/Kathmandu'",
    "DateStyle = 'SQL, DMY'",
    "IntervalStyle = 'postgres_verbose'",
    "extra_float_digits = 0",
    "search_path = 'nowhere'",
    "client_encoding = 'LATIN1'",
    "standard_conforming_strings = off",
    "array_nulls = off",
)


def test_the_server_s_defaults_change_nothing(
    world: World, database_url: str, job_url: str
) -> None:
    """Isolation, zones, styles and paths are the jobs' own; names of any script are kept."""
    job_role = psycopg.conninfo.conninfo_to_dict(job_url)["user"]
    with psycopg.connect(database_url, autocommit=True) as connection:
        database = connection.info.dbname
        for default in DEFAULTS:
            statement = f"ALTER ROLE {job_role} IN DATABASE {database} SET {default}"
            connection.execute(statement.encode())
    world.add_node("us-1", world.add_users(1), tag="東京-é")
    an_unknown_uuid_is_reset(world)
    world.assert_all_is_billed()
    assert ("東京-é",) in world.rows("SELECT line_code FROM public.traffic_minute_buckets")
