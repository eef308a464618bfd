"""A connection string that services in Go use, too, goes on working."""

from __future__ import annotations

import pytest

from billing_cli.config.connection_string import without_driver_parameters

URI = "postgresql://billing:pass%3Fword@db:5432/account"


@pytest.mark.parametrize(
    ("text", "expected", "ignored"),
    [
        (f"{URI}?pool_max_conns=10", URI, ["pool_max_conns"]),
        (
            f"{URI}?sslmode=disable&pool_max_conn_lifetime=1h&connect_timeout=5&TimeZone=UTC",
            f"{URI}?sslmode=disable&connect_timeout=5",
            ["pool_max_conn_lifetime", "TimeZone"],
        ),
        (f"{URI}?binary%5Fparameters=yes&sslmode=disable", f"{URI}?sslmode=disable",
         ["binary_parameters"]),
        ("host=db dbname=account TimeZone=Asia/Shanghai", "host=db dbname=account", ["TimeZone"]),
        (
            r"host=db password='a \' pool_max_conns=1' statement_cache_mode = 'describe' port=1",
            r"host=db password='a \' pool_max_conns=1' port=1",
            ["statement_cache_mode"],
        ),
    ],
)  # fmt: skip
def test_parameters_of_go_drivers_are_left_out(
    text: str, expected: str, ignored: list[str]
) -> None:
    """Of pools, caches of statements, and the server's session; their names are returned."""
    assert without_driver_parameters(text) == (expected, tuple(ignored))


@pytest.mark.parametrize(
    "text",
    [
        URI,
        f"{URI}?",
        f"{URI}?sslmode=verify-full&passwrod=x&pool_max_cons=1&role=owner",
        "postgresql://billing:pool_max_conns=1@db/account",
        "host=db passwrod=x role=owner options='-c timezone=UTC'",
        "host=db password='pool_max_conns=1",
        "host=db timezone=UTC password='open",
    ],
)
def test_everything_else_stays_as_it_is(text: str) -> None:
    """What libpq does not know is refused, so that a misspelt parameter is an error."""
    assert without_driver_parameters(text) == (text, ())
