"""What each failure of PostgreSQL means for a run: its exception, and with it its exit code.

docs/errors.md has the same as a table for operators.
"""

from __future__ import annotations

import re

import psycopg
from psycopg import errors as pg
from psycopg.pq import Conninfo

from billing_cli.database.schema import MIGRATE_HINT, RESTORE_HINT
from billing_cli.errors import (
    BillingError,
    ConfigurationError,
    DatabaseUnavailableError,
    SchemaError,
)
from billing_cli.suggestions import nearest_of

# The same transaction may well succeed on a new connection, a moment later.
TRANSIENT = (
    pg.SerializationFailure,
    pg.DeadlockDetected,
    pg.AdminShutdown,
    pg.CrashShutdown,
    pg.CannotConnectNow,
    pg.IdleInTransactionSessionTimeout,
    pg.IdleSessionTimeout,
)
TIMEOUTS = (
    pg.LockNotAvailable,
    pg.QueryCanceled,
    pg.IdleInTransactionSessionTimeout,
    pg.TransactionTimeout,
)
# The function of PostgreSQL that ends a statement which has waited for too long.
TIMED_OUT = "ProcessInterrupts"
UNREACHABLE = (
    pg.AdminShutdown,
    pg.CrashShutdown,
    pg.CannotConnectNow,
    pg.DatabaseDropped,
    pg.IdleSessionTimeout,
    pg.TooManyConnections,
)
SCHEMA_MISMATCH = (
    pg.UndefinedTable,
    pg.UndefinedColumn,
    pg.UndefinedFunction,
    pg.InvalidSchemaName,
    # ON CONFLICT names a key that the table does not have.
    pg.InvalidColumnReference,
    pg.DatatypeMismatch,
)

# Classes of SQLSTATE that are about data: what it is, or what a check, or another owner's trigger
# or function, raises about it.
DATA_CLASSES = frozenset({"21", "22", "23", "27", "38", "39", "44", "54", "P0"})

# Classes that are about the server, the connection or the transaction, whichever function is
# running. Of any other, what a trigger of another owner raises is about the row that it is for.
SERVER_CLASSES = frozenset({"08", "25", "40", "53", "57", "58", "XX"})

# What a server says to a client that it will never let in as it comes. The driver hands over no
# SQLSTATE for a connection that was refused, only words; a server that says them in another
# language counts as one that can't be reached. Those of PgBouncer are among them.
REFUSED_FOR_GOOD = re.compile(
    r"""
    authentication\ failed | no\ password\ supplied | no\ pg_hba\.conf\ entry
  | pg_hba\.conf\ rejects | requires\ a\ valid\ client\ certificate
  | (?:role|database|user)\ ".*"\ does\ not\ exist | no\ such\ (?:database|user)
  | bouncer\ config\ error
  | is\ not\ permitted\ to\ log\ in | permission\ denied\ for\ database
  | unrecognized\ configuration\ parameter | unsupported\ startup\ parameter
  | server\ does\ not\ support\ SSL
    """,
    re.VERBOSE,
)
# What is wrong with files of our own, before anything is asked of the server.
UNUSABLE_FILE = re.compile(r"(?:certificate|private key|certificate revocation list) file ")
# A parameter that the driver makes no sense of. Its value is not shown: where a password with
# special characters took the string apart, it is a part of it.
INVALID_VALUE = re.compile(
    r"""
    \b(?: invalid\ integer\ value\ ".*"\ for\ connection\ option\ "(\w+)"
      | invalid\ "?([\w-]+)"?\ value\b
      | invalid\ (port)\ number\b
      | bad\ value\ for\ (\w+) )
    """,
    re.VERBOSE,
)
UNKNOWN_PARAMETER = re.compile(r'^invalid (?:connection option|URI query parameter:) "([^"]+)"')
# How much of an unknown parameter's name must be that of a known one to be shown: any other may be
# a piece of a password.
MISSPELT = 0.75

# The role that a job needs, where it is not the one of all others; who migrates needs none.
GRANT_OPTIONS = {
    "billing suspend": "--grant-suspend-to",
    "billing seal": "--grant-seal-to",
    "billing migrate": "",
}

# The innermost function of a procedural language, in the server's language: where it failed.
PROCEDURAL = re.compile(r"^PL/\S+ \S+ [\"„«“]?(?P<name>[^\s(\"“»”]+)", re.MULTILINE)
QUALIFY_HINT = (
    "our search_path is pg_catalog alone: in that function, write tables and functions with their "
    "schema, or give it a search_path (ALTER FUNCTION ... SET search_path)"
)

REACH_HINT = "; check that it runs and can be reached, and DATABASE_URL"

QUOTED = re.compile(r'"[^"]*"')


class DataRefusedError(BillingError):
    """The database refused data that was to be written; a source of the run may be to blame."""


def translate(error: psycopg.Error, application_name: str = "billing") -> BillingError:
    """Return the one-line failure for a database error; its text holds no DSN and no row data.

    `application_name` is that of the session: it says which privileges are needed.
    """
    detail = one_line(error)
    if is_about_data(error):
        is_constraint = isinstance(error, pg.IntegrityError)
        table = f" ({table_of(error)})" if is_constraint and table_of(error) else ""
        code = "database_constraint" if is_constraint else "database_failed"
        # Such a code means something else wherever PostgreSQL itself raises it.
        place = "" if _is_of_data_class(error) else f", in {function_of_others(error)}"
        return DataRefusedError(f"database: {detail}{table}{place}", code=code)
    if isinstance(error, SCHEMA_MISMATCH):
        return _schema_mismatch(error, detail)
    if isinstance(error, pg.InsufficientPrivilege):
        option = GRANT_OPTIONS.get(application_name, "--grant-to")
        hint = f"; let the owner of the tables run `billing migrate {option} ROLE`"
        return SchemaError(
            f"the database role may not do this: {detail}{hint if option else ''}",
            code="privileges",
        )
    if isinstance(error, pg.ReadOnlySqlTransaction):
        # Whoever takes writes is elsewhere for now: a failover moves us back without a change.
        return DatabaseUnavailableError(
            f"database: it is a replica, or set to be read-only: {detail}"
        )
    if isinstance(error, UNREACHABLE) or is_lost_connection(error):
        is_out_of_reach = detail.startswith("connection to server") and "FATAL" not in detail
        hint = REACH_HINT if is_out_of_reach else ""
        return DatabaseUnavailableError(f"database: {detail}{hint}")
    code = "database_timeout" if isinstance(error, TIMEOUTS) else "database_failed"
    return BillingError(f"database: {detail}", code=code)


def _schema_mismatch(error: psycopg.Error, detail: str) -> SchemaError:
    function = function_of_others(error)
    if function is None:
        is_shared = isinstance(error, pg.UndefinedTable) and 'relation "public.' in detail
        hint = RESTORE_HINT if is_shared else MIGRATE_HINT
        text = f"the database's schema is not this version's: {detail}; {hint}"
    else:
        text = (
            f"database: a trigger of another owner failed: {detail}, in {function}; {QUALIFY_HINT}"
        )
    return SchemaError(text)


def function_of_others(error: psycopg.Error) -> str | None:
    """Return the function in which an error was raised, where it is not one of ours."""
    found = PROCEDURAL.search(error.diag.context or "")
    # Inline code is that of our DO statements.
    if found is None or found["name"].startswith(("billing.", "inline_code_block")):
        return None
    return found["name"]


def table_of(error: psycopg.Error) -> str:
    """Return the table that an error is about, with its schema; empty where it is about none."""
    return ".".join(part for part in (error.diag.schema_name, error.diag.table_name) if part)


def refusal_for_good(error: psycopg.OperationalError) -> ConfigurationError | None:
    """Return the failure where a connection can't come about as it is configured."""
    if refusal := refusal_of_parameter(error):
        return refusal
    detail = one_line(error)
    if UNUSABLE_FILE.search(detail) or REFUSED_FOR_GOOD.search(detail):
        return ConfigurationError(f"DATABASE_URL: {detail}")
    return None


def refusal_of_parameter(error: psycopg.Error) -> ConfigurationError | None:
    """Return the failure where a parameter, or its value, makes no sense to the driver."""
    detail = one_line(error)
    known = [option.keyword.decode() for option in Conninfo.get_defaults()]
    if found := INVALID_VALUE.search(detail):
        name = next((name for name in found.groups() if name in known), "a parameter")
        return ConfigurationError(f"DATABASE_URL: {name} has a value that means nothing")
    found = UNKNOWN_PARAMETER.search(detail)
    nearest = nearest_of(found[1], known, MISSPELT) if found else None
    if found and nearest:
        return ConfigurationError(
            f"DATABASE_URL: unknown parameter {found[1]!r} (did you mean {nearest!r}?)"
        )
    return None


def is_transient(error: psycopg.Error) -> bool:
    """Return whether the same transaction may well succeed when it is tried again."""
    return isinstance(error, TRANSIENT) or is_lost_connection(error)


def is_about_data(error: psycopg.Error) -> bool:
    """Return whether the data that a transaction writes is to blame; other data may do well."""
    if error.sqlstate is None:
        return False
    if _is_of_data_class(error):
        return True
    is_general = error.sqlstate[:2] in SERVER_CLASSES or isinstance(error, SCHEMA_MISMATCH)
    # Whoever looks for the source to blame would wait for that lock again and again.
    is_timeout = isinstance(error, TIMEOUTS) and error.diag.source_function == TIMED_OUT
    return not is_general and not is_timeout and function_of_others(error) is not None


def _is_of_data_class(error: psycopg.Error) -> bool:
    try:
        pg.lookup(error.sqlstate or "")
    except KeyError:
        # Another owner's trigger has error codes of its own.
        return True
    return (error.sqlstate or "")[:2] in DATA_CLASSES


def is_lost_connection(error: psycopg.Error) -> bool:
    """Return whether the line to the server is gone, or never came about."""
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate.startswith("08")


def one_line(error: psycopg.Error) -> str:
    """Return the server's primary message, or what the driver says without its advice.

    Never DETAIL, which holds the keys of rows; and what the primary message quotes of a value that
    can't be read is left out.
    """
    message = error.diag.message_primary
    if message is not None and isinstance(error, pg.DataError):
        message = QUOTED.sub('"..."', message)
    if message is None:
        # Where several addresses were tried, the last one's failure comes first, then a list.
        said, _, _ = str(error).partition("\nMultiple connection attempts failed")
        lines = [line for line in said.splitlines() if not line.startswith(("\t", "DETAIL:"))]
        message = "; ".join(dict.fromkeys(lines)) or type(error).__name__
        message = message.removeprefix("connection failed: ").removeprefix("connection is bad: ")
    return " ".join(message.split())
