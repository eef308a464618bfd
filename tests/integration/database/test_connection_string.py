"""What DATABASE_URL may say, and what an error about it does not say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from billing_cli.database.connecting import Database
from billing_cli.database.connection import Session
from billing_cli.errors import BillingError, ConfigurationError, DatabaseUnavailableError
from tests.integration.database.stage import PASSWORD, assert_is_one_clear_line, with_parameters

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg import Connection

NOBODY = "127.0.0.1:1"


@pytest.mark.parametrize("special", ["@", "/", "?", "#", "%", ":", " ", "'", "\\", "&", "="])
def test_a_password_that_takes_the_string_apart_is_never_shown(special: str) -> None:
    """A character that should have been percent-encoded puts half of it where the host belongs."""
    first, second = PASSWORD[:7], PASSWORD[7:]
    error = error_of(f"postgresql://billing:{first}{special}{second}@{NOBODY}/account")
    assert_is_one_clear_line(str(error))
    assert first not in str(error)
    assert second not in str(error)


@pytest.mark.parametrize(
    "dsn",
    [
        f"host=127.0.0.1 port=1 password='{PASSWORD}",
        f"host=127.0.0.1 port=1 passwrod={PASSWORD}",
        f"postgresql://billing@{NOBODY}/account?passwrod={PASSWORD}",
        f"postgresql://billing:{PASSWORD}@{NOBODY}/account?sslmode=perhaps",
        f"postgresql://billing:{PASSWORD}@{NOBODY}/account?connect_timeout=soon",
        f"postgresql://billing:{PASSWORD}@{NOBODY}/account?keepalives_idle=never",
        f"postgresql://billing:{PASSWORD}@127.0.0.1:99999/account",
    ],
)
def test_a_string_that_makes_no_sense_is_a_wrong_configuration(dsn: str) -> None:
    """It is not repeated, because any part of it may be the password."""
    error = error_of(dsn)
    assert isinstance(error, ConfigurationError)
    assert_is_one_clear_line(str(error))


@pytest.mark.parametrize(
    ("dsn", "reason"),
    [
        ("host=127.0.0.1 port=1 sslmode=foo", "sslmode has a value that means nothing"),
        (f"postgresql://{NOBODY}/a?connect_timeout=soon", "connect_timeout has a value that"),
        (f"postgresql://{NOBODY}/a?keepalives_idle=x", "keepalives_idle has a value that"),
        ("postgresql://127.0.0.1:70000/account", "port has a value that means nothing"),
        ("host=127.0.0.1 prt=1", "unknown parameter 'prt' (did you mean 'port'?)"),
        (f"postgresql://{NOBODY}/a?ssl_mode=no", "'ssl_mode' (did you mean 'sslmode'?)"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_named(dsn: str, reason: str) -> None:
    """By a name that the driver knows, or nearly knows."""
    assert reason in str(error_of(dsn))


@pytest.mark.parametrize("dsn", ["host=h password=half {}=1", "postgresql://u:half/x?{}=1@h/a"])
def test_a_piece_of_a_password_is_no_parameter(dsn: str) -> None:
    """What the driver takes for a name, and is not like one."""
    assert "percent-encoded" in str(error_of(dsn.format("oth3r")))
    assert "oth3r" not in str(error_of(dsn.format("oth3r")))


def test_a_good_string_with_nobody_behind_it_is_an_outage() -> None:
    """Special characters that are encoded do no harm."""
    error = error_of(f"postgresql://billing:{PASSWORD}%40%2F%3F%23@{NOBODY}/account")
    assert isinstance(error, DatabaseUnavailableError)


def test_a_session_says_who_it_is(database_url: str) -> None:
    """The job is what an operator sees in pg_stat_activity."""
    assert shown(Database(database_url, "billing collect"), "application_name") == "billing collect"


def test_the_connection_string_goes_before_our_own_choice(database_url: str) -> None:
    """Its application_name, and its timeouts, are the operator's word."""
    url = with_parameters(database_url, application_name="ours", connect_timeout=7)
    database = Database(url, "billing collect")
    assert shown(database, "application_name") == "ours"
    assert parameter(database, "connect_timeout") == "7"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("connect_timeout", "10"),
        ("keepalives_idle", "10"),
        ("keepalives_interval", "5"),
        ("keepalives_count", "3"),
        ("tcp_user_timeout", "25000"),
    ],
)
def test_a_line_that_died_is_noticed_within_half_a_minute(
    database_url: str, name: str, value: str
) -> None:
    """By keepalives while nothing is sent, and by a timeout for what was sent."""
    assert parameter(Database(database_url), name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("statement_timeout", "30s"),
        ("lock_timeout", "15s"),
        ("idle_in_transaction_session_timeout", "30s"),
    ],
)
def test_timeouts_hold_within_a_transaction_alone(database_url: str, name: str, value: str) -> None:
    """A pooler hands the session to others afterwards, who have limits of their own."""
    connections: list[Connection] = []

    def show(connection: Connection) -> str:
        connections.append(connection)
        return showing(name)(connection)

    with Session(Database(database_url)) as session:
        for do in (session.read, session.read_one_state, session.transaction):
            assert do(show) == value
            assert showing(name)(connections[-1]) != value


def test_a_dry_run_may_pause_in_its_transaction(database_url: str) -> None:
    """It asks exporters while the transaction is open; other limits are the same."""
    with Session(Database(database_url), dry_run=True) as session:
        assert session.transaction(showing("idle_in_transaction_session_timeout")) == "0"
        assert session.transaction(showing("statement_timeout")) == "30s"


def error_of(dsn: str) -> BillingError:
    """Return why nothing can be read over a connection string."""
    database = Database(dsn, connect_timeout_seconds=2)
    with Session(database) as session, pytest.raises(BillingError) as caught:
        session.read(showing("server_version"))
    return caught.value


def shown(database: Database, name: str) -> str:
    """Return a session's setting as the server knows it."""
    with Session(database) as session:
        return session.read(showing(name))


def parameter(database: Database, name: str) -> str | None:
    """Return a parameter of the connection as the driver knows it."""
    with Session(database) as session:
        return session.read(lambda one: one.info.get_parameters().get(name))


def showing(name: str) -> Callable[[Connection], str]:
    """Return work that reads a setting."""

    def show(connection: Connection) -> str:
        row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
        assert row is not None
        return str(row[0])

    return show
