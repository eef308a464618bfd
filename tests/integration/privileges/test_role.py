"""The role of the jobs may not do more than its work."""

from __future__ import annotations

import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.errors import (
    InsufficientPrivilege,
    LockNotAvailable,
    ObjectNotInPrerequisiteState,
)

from billing_cli.database.grants import GRANTS
from billing_cli.database.privileges import Privileges, read_privileges, read_role

if TYPE_CHECKING:
    import psycopg


TABLES = sorted({one.table for one in GRANTS})

FORBIDDEN = {
    "change a ledger entry": "UPDATE public.billing_ledger SET amount_delta = 0",
    "change a usage record": "UPDATE billing.usage_records SET uplink_end = 0",
    "change the evidence of a charge": "UPDATE billing.charges SET amount_delta = 0",
    "read passwords": "SELECT password FROM public.users",
    "read whole accounts": "SELECT * FROM public.users",
    "change an account": "UPDATE public.users SET proxy_uuid = uuid",
    "lock an account by itself": "SELECT uuid FROM public.users FOR KEY SHARE",
    "make an account": "INSERT INTO public.users (uuid, proxy_uuid) VALUES (NULL, NULL)",
    "change what an account pays": "UPDATE public.account_billing_profiles SET package_name = ''",
    "suspend an account": "UPDATE public.account_quota_states SET suspend_state = 'suspended'",
    "move an account's quota": "UPDATE public.account_quota_states SET account_uuid = NULL",
    "move a bucket": "UPDATE public.traffic_minute_buckets SET bucket_start = now()",
    "rewrite where a stream began": "UPDATE billing.streams SET first_uplink_total = 0",
    "rewrite a held delta": "UPDATE billing.held_deltas SET uplink_start = 0",
    "claim another version": "UPDATE billing.alembic_version SET version_num = ''",
    "make a table": "CREATE TABLE billing.mine (x int)",
    "make a table in public": "CREATE TABLE public.mine (x int)",
    "change a table": "ALTER TABLE billing.runs ADD x int",
    "drop a table": "DROP TABLE billing.runs",
    "switch a guard off": "ALTER TABLE billing.charges DISABLE TRIGGER ALL",
    "switch all triggers off": "SET session_replication_role = replica",
    "replace the function that locks": "ALTER FUNCTION billing.lock_accounts(uuid[]) STABLE",
    "make a partition of any month": "SELECT billing.make_partition('1999-01-01')",
    "read a partition": "SELECT FROM billing.charges_default",
    "write to a partition": "INSERT INTO billing.charges_default (bucket_start) VALUES (now())",
    "become the owner": "SET ROLE postgres",
}


def test_the_jobs_role_may_not(job_connection: psycopg.Connection) -> None:
    """What no job does is refused by the database, whoever gets hold of the connection."""
    allowed = set(FORBIDDEN)
    for name, statement in FORBIDDEN.items():
        with suppress(InsufficientPrivilege, ObjectNotInPrerequisiteState):
            job_connection.execute(statement.encode())
            continue
        allowed.remove(name)
    assert allowed == set()


@pytest.mark.parametrize("verb", ["DELETE FROM", "TRUNCATE"])
def test_the_jobs_role_may_delete_nothing(job_connection: psycopg.Connection, verb: str) -> None:
    """In no table, neither row by row nor all at once."""
    for table in TABLES:
        with pytest.raises(InsufficientPrivilege):
            job_connection.execute(f"{verb} {table}".encode())


def test_accounts_are_locked_without_the_right_to_change_them(
    connection: psycopg.Connection[dict[str, Any]], job_connection: psycopg.Connection
) -> None:
    """While a job is at work nobody deletes its accounts; other changes to them do not wait."""
    there, gone = str(uuid.uuid4()), str(uuid.uuid4())
    connection.execute(
        "INSERT INTO public.users (uuid, proxy_uuid, username, password) VALUES (%s, %s, '', '')",
        (there, there),
    )
    connection.execute("SET lock_timeout = '50ms'")
    delete = "DELETE FROM public.users"
    with job_connection.transaction():
        locked = job_connection.execute(
            "SELECT billing.lock_accounts(%s::uuid[])::text", ([gone, there],)
        )
        assert locked.fetchall() == [(there,)]
        connection.execute("UPDATE public.users SET username = 'renamed'")
        with pytest.raises(LockNotAvailable):
            connection.execute(delete)
    assert connection.execute(delete).rowcount == 1


def test_nobody_else_may_lock_accounts(
    connection: psycopg.Connection[dict[str, Any]], job_connection: psycopg.Connection
) -> None:
    """The function runs as its owner, so it is not for everyone who can name it."""
    role = "REVOKE EXECUTE ON FUNCTION billing.lock_accounts(uuid[]) FROM {}"
    connection.execute(role.format(job_connection.info.user).encode())
    with pytest.raises(InsufficientPrivilege, match="lock_accounts"):
        job_connection.execute("SELECT billing.lock_accounts('{}')")


def test_the_role_has_what_it_needs_and_nothing_more(job_connection: psycopg.Connection) -> None:
    """As the role itself sees it, on a database with all optional columns."""
    role = read_role(job_connection)
    assert role is not None
    assert read_privileges(job_connection, role) == Privileges((), ())
