"""Whether a server does what the jobs ask of it: each feature is tried in a transaction that ends.

PostgreSQL from 13 on has all of them. Servers that speak its protocol may lack some, or accept the
syntax of a feature without doing what it says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import psycopg

from billing_cli.features.check.findings import Finding

if TYPE_CHECKING:
    from psycopg import Connection

    from billing_cli.features.check.findings import State

OLDEST_VERSION = 13

TEMPORARY_TABLES, STAGED = "temporary tables ON COMMIT DROP", "the facts of a run are staged there"
ROWS = "CREATE TEMPORARY TABLE probe_rows (id bigint PRIMARY KEY, total numeric) ON COMMIT DROP"
REFUSE = """
CREATE FUNCTION pg_temp.probe_refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION USING ERRCODE = 'restrict_violation'; END $$
"""
TRIGGER = """
CREATE TRIGGER probe_fixed BEFORE DELETE ON probe_rows
   FOR EACH STATEMENT EXECUTE FUNCTION pg_temp.probe_refuse()
"""
DELETE_IS_REFUSED = """
DO $$ BEGIN
  DELETE FROM probe_rows;
  RAISE EXCEPTION 'a trigger did not refuse a DELETE';
EXCEPTION WHEN restrict_violation THEN NULL; END $$
"""
SPLIT = """
CREATE TEMPORARY TABLE probe_months (at timestamptz NOT NULL, PRIMARY KEY (at))
 PARTITION BY RANGE (at) ON COMMIT DROP
"""
MONTH = """
CREATE TEMPORARY TABLE probe_month PARTITION OF probe_months
   FOR VALUES FROM ('2026-01-01Z') TO ('2026-02-01Z')
"""
DEFINER = """
CREATE FUNCTION pg_temp.probe_definer() RETURNS bigint LANGUAGE sql SECURITY DEFINER
   SET search_path = pg_catalog, pg_temp AS 'SELECT count(*) FROM probe_rows'
"""
# A lock that is a no-op would not be listed.
ADVISORY_LOCK = """
SELECT 1 / count(*) FROM pg_locks
 WHERE pid = pg_backend_pid() AND locktype = 'advisory' AND granted
"""
UPSERT = """
INSERT INTO probe_rows VALUES (1, 1)
    ON CONFLICT (id) DO UPDATE SET total = probe_rows.total + excluded.total
"""
EXPRESSIONS = """
WITH given AS MATERIALIZED (
  SELECT name, place FROM unnest(ARRAY['a', 'b']) WITH ORDINALITY AS listed (name, place)
)
SELECT sha256(convert_to(name, 'UTF8')) FROM given ORDER BY name COLLATE "C", place
"""
TIMEOUTS = """
SELECT set_config('statement_timeout', '30s', true), set_config('lock_timeout', '15s', true),
       set_config('idle_in_transaction_session_timeout', '30s', true)
"""


class Probe(NamedTuple):
    """A feature of the server, what it is needed for, and the statements that need it."""

    feature: str
    purpose: str
    statements: tuple[str, ...]


PROBES = (
    Probe(
        "INSERT ... ON CONFLICT DO UPDATE",
        "a fact is stored once, however often it is sent",
        (UPSERT,),
    ),
    Probe(
        "row locks, SKIP LOCKED",
        "two runs never work on one source or one balance",
        (
            "SELECT id FROM probe_rows FOR KEY SHARE",
            "SELECT id FROM probe_rows FOR NO KEY UPDATE",
            "SELECT id FROM probe_rows FOR UPDATE SKIP LOCKED",
        ),
    ),
    Probe(
        "advisory locks",
        "one migration at a time",
        ("SELECT pg_advisory_xact_lock(8104219740125881)", ADVISORY_LOCK),
    ),
    Probe(
        "pg_xact_status",
        "a COMMIT without an answer is not repeated",
        ("SELECT 1 / (pg_xact_status(pg_current_xact_id()) = 'in progress')::integer",),
    ),
    Probe(
        "triggers FOR EACH STATEMENT, ENABLE ALWAYS",
        "evidence is append-only",
        (
            REFUSE,
            TRIGGER,
            "ALTER TABLE probe_rows ENABLE ALWAYS TRIGGER probe_fixed",
            DELETE_IS_REFUSED,
        ),
    ),
    Probe("range partitions", "evidence is kept and pruned by month", (SPLIT, MONTH)),
    Probe(
        "SECURITY DEFINER functions with a search path",
        "the job role locks accounts without a right to change them",
        (DEFINER, "SELECT pg_temp.probe_definer()"),
    ),
    Probe(
        "MATERIALIZED queries, arrays WITH ORDINALITY, sha256",
        "statements take all rows of a run at once",
        (EXPRESSIONS,),
    ),
    Probe(
        "timeouts of a transaction",
        "a stuck server or neighbour ends a run, not all runs",
        (TIMEOUTS,),
    ),
)
COPY_ROWS = "COPY probe_rows FROM STDIN"


def probe_server(connection: Connection) -> tuple[Finding, ...]:
    """Try every feature; return what the server lacks, or that it lacks nothing.

    The caller rolls back. Without the right to make temporary tables nothing can be tried: the
    finding about privileges names it.
    """
    try:
        connection.execute(ROWS.encode())
    except psycopg.errors.InsufficientPrivilege:
        return ()
    except psycopg.errors.ReadOnlySqlTransaction:
        text = "transactions are read-only by default: default_transaction_read_only must be off"
        return (_finding("failed", text),)
    except psycopg.Error as error:
        return (_finding("failed", _text(TEMPORARY_TABLES, STAGED, error)),)
    tried = [_missing(connection, probe) for probe in PROBES] + [_missing_copy(connection)]
    if any(tried):
        return tuple(_finding("failed", missing) for missing in tried if missing)
    return (_finding("ok", f"all {len(PROBES) + 2} that the jobs use work"),)


def version_findings(version: int) -> tuple[Finding, ...]:
    """Return a failure for a server that is too old; `version` is its major one."""
    if version >= OLDEST_VERSION:
        return ()
    return (_finding("failed", f"PostgreSQL {version} is too old: {OLDEST_VERSION} is the oldest"),)


def _missing(connection: Connection, probe: Probe) -> str | None:
    try:
        with connection.transaction():
            for statement in probe.statements:
                connection.execute(statement.encode())
    except psycopg.Error as error:
        return _text(probe.feature, probe.purpose, error)
    return None


def _missing_copy(connection: Connection) -> str | None:
    try:
        with (
            connection.transaction(),
            connection.cursor() as cursor,
            cursor.copy(COPY_ROWS.encode()) as copy,
        ):
            copy.write(b"2\t0.5\n")
    except psycopg.Error as error:
        return _text("COPY", "rows are sent by it", error)
    return None


def _text(feature: str, purpose: str, error: psycopg.Error) -> str:
    reason = str(error.diag.message_primary or error)
    return f"{feature}: not as in PostgreSQL ({reason}); {purpose}"


def _finding(state: State, text: str) -> Finding:
    return Finding("database", "server features", state, text)
