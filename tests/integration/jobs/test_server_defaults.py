"""Defaults that a role or database may have: what is billed does not depend on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

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
)


@pytest.fixture
def peculiar_url(request: pytest.FixtureRequest, database_url: str, job_url: str) -> str:
    """Return how jobs connect to a database with a peculiar default."""
    job_role = psycopg.conninfo.conninfo_to_dict(job_url)["user"]
    with psycopg.connect(database_url, autocommit=True) as connection:
        database = connection.info.dbname
        statement = f"ALTER ROLE {job_role} IN DATABASE {database} SET {request.param}"
        connection.execute(statement.encode())
    return job_url


@pytest.mark.parametrize("peculiar_url", DEFAULTS, indirect=True)
@pytest.mark.usefixtures("peculiar_url")
def test_the_server_s_defaults_change_nothing(world: World) -> None:
    """Isolation, zones, styles and paths are the jobs' own."""
    an_unknown_uuid_is_reset(world)
    world.assert_all_is_billed()


@pytest.mark.parametrize("peculiar_url", ["client_encoding = 'LATIN1'"], indirect=True)
@pytest.mark.usefixtures("peculiar_url")
def test_names_of_any_script_are_kept(world: World) -> None:
    """An inbound's tag arrives as the exporter wrote it, whatever the role's encoding is."""
    world.add_node("jp-1", world.add_users(1), tag="東京-é")
    world.flow_until(3)
    world.collect_every_minute(1, 4)
    world.assert_all_is_billed()
    assert world.rows("SELECT DISTINCT line_code FROM public.traffic_minute_buckets") == [
        ("東京-é",)
    ]
