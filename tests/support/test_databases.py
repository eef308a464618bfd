from __future__ import annotations

from typing import Any

import psycopg
import pytest


@pytest.mark.parametrize("turn", range(3))
def test_each_test_has_a_database_of_its_own(
    turn: int, connection: psycopg.Connection[dict[str, Any]]
) -> None:
    """What one test stores, none other meets."""
    assert connection.execute("SELECT count(*) AS rows FROM public.users").fetchone() == {"rows": 0}
    connection.execute(
        "INSERT INTO public.users (uuid, proxy_uuid, username, password) "
        "VALUES (gen_random_uuid(), gen_random_uuid(), %s, '')",
        (str(turn),),
    )


def test_an_empty_database_holds_no_table_of_ours(empty_database_url: str) -> None:
    """Migrations can be tested from nothing."""
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("SELECT to_regnamespace('billing')").fetchone() == (None,)
