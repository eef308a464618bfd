"""A connection to the database, and what its connection string may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from billing_cli.database.begin import load_moments_as_utc
from billing_cli.database.failures import refusal_for_good, refusal_of_parameter
from billing_cli.database.patience import PatientConnection
from billing_cli.errors import ConfigurationError

UNREADABLE_DSN = (
    "DATABASE_URL: not a PostgreSQL URI or libpq keyword string; "
    "special characters in a password must be percent-encoded in a URI"
)


@dataclass(frozen=True, slots=True)
class Database:
    """Where PostgreSQL is and how long it may take. `dsn` is a URI or a libpq keyword string.

    The timeouts of statements and locks are the server's to keep; one that has not done so after
    another `grace_seconds` is taken for dead.
    """

    dsn: str
    application_name: str = "billing"
    connect_timeout_seconds: int = 10
    statement_timeout_seconds: float = 30.0
    lock_timeout_seconds: float = 15.0
    grace_seconds: float = 5.0

    def __repr__(self) -> str:
        return "Database(dsn=***)"


def connect(database: Database) -> PatientConnection[tuple[Any, ...]]:
    """Return a connection. Raises ConfigurationError where the server refuses it for good."""
    # What the connection string says itself goes before our own choice; but texts are sent in this
    # encoding, whatever others of the database like to speak.
    parameters = {
        **_defaults(database),
        **_parameters(database.dsn),
        "client_encoding": "UTF8",
    }
    try:
        connection = PatientConnection[tuple[Any, ...]].connect(
            **parameters, autocommit=True, prepare_threshold=None
        )
    except psycopg.ProgrammingError as error:
        refusal = refusal_of_parameter(error) or ConfigurationError(UNREADABLE_DSN)
        raise refusal from None
    except psycopg.OperationalError as error:
        permanent = refusal_for_good(error)
        if permanent is not None:
            raise permanent from None
        raise
    load_moments_as_utc(connection)
    connection.patience_seconds = database.statement_timeout_seconds + database.grace_seconds
    connection.grace_seconds = database.grace_seconds
    return connection


def _parameters(dsn: str) -> dict[str, Any]:
    """Return the connection string's parameters.

    Raises ConfigurationError where it can't be read, without repeating it: where a password with
    special characters took it apart, a piece of that stands in place of the host or the port.
    """
    try:
        given = {name: value for name, value in conninfo_to_dict(dsn).items() if value is not None}
    except psycopg.ProgrammingError as error:
        refusal = refusal_of_parameter(error) or ConfigurationError(UNREADABLE_DSN)
        raise refusal from None
    hosts = str(given.get("host", "")).split(",")
    ports = str(given.get("port", "")).split(",")
    # A socket's directory stands for a host, and a name that begins with @ for an abstract one.
    is_odd = any("@" in host[1:] or not host.isprintable() for host in hosts)
    if is_odd or not all(port.isdecimal() or not port for port in ports):
        raise ConfigurationError(UNREADABLE_DSN)
    return given


def _defaults(database: Database) -> dict[str, Any]:
    return {
        "application_name": database.application_name,
        "connect_timeout": database.connect_timeout_seconds,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        # Data that is sent into the void is noticed as soon as silence is.
        "tcp_user_timeout": 25_000,
    }
