"""From what a database server says of itself and of our role to findings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from billing_cli.features.check.findings import (
    DATABASE_CONNECTION,
    STANDBY,
    Finding,
    clock_state,
    clock_text,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from billing_cli.features.check.findings import State

MAX_WORDS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """How the server was reached, and what it is.

    `place` is `host:port` or a socket's directory. `is_verified` means that TLS proved whose
    server this is. `clock_difference_seconds` is its clock minus ours. `powers` are what the role
    may do beyond any database, in words.
    """

    version: str
    major_version: int
    database: str
    role: str
    place: str
    is_local: bool
    is_encrypted: bool
    is_verified: bool
    is_standby: bool
    clock_difference_seconds: float
    powers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RoleFacts:
    """What the role lacks to run the jobs, and what it could do without, each in words.

    `public_schema` says who can create objects in schema `public` and should not.
    """

    missing: tuple[str, ...]
    needless: tuple[str, ...]
    owned_tables: tuple[str, ...]
    is_superuser: bool
    public_schema: str | None = None


@dataclass(frozen=True, slots=True)
class ReplicationFacts:
    """By which publications, subscriptions and extensions the quota states are replicated."""

    publications: tuple[str, ...] = ()
    subscriptions: tuple[str, ...] = ()
    extensions: tuple[str, ...] = ()


def replication_findings(facts: ReplicationFacts) -> tuple[Finding, ...]:
    """Return whether balances may be overwritten by those of another server."""
    ways = [f"publication {name}" for name in facts.publications]
    ways += [f"subscription {name}" for name in facts.subscriptions]
    ways += list(facts.extensions)
    if not ways:
        return ()
    is_certain = bool(facts.extensions or (facts.publications and facts.subscriptions))
    condition = "" if is_certain else "if other servers write them as well, "
    text = (
        f"public.account_quota_states is replicated by {_some(ways)}: {condition}conflicting "
        "balances are resolved by the last write, and charges are lost; let one server write "
        "quota states, and take the table out of what other servers send to it"
    )
    return (_finding("replication", "warning", text),)


def server_findings(server: ServerFacts) -> tuple[Finding, ...]:
    """Return what is to be said of a server that answered."""
    where = f"PostgreSQL {server.version} at {server.place}"
    found = [
        _finding(
            DATABASE_CONNECTION, "ok", f"{where}, database {server.database} as {server.role}"
        ),
        _finding("encryption", *_encryption(server)),
        _finding(
            "clock",
            clock_state(server.clock_difference_seconds),
            clock_text(server.clock_difference_seconds),
        ),
    ]
    if server.is_standby:
        found.append(_finding(STANDBY, "failed", "a standby, on which nothing can be written"))
    return tuple(found)


def role_findings(role: RoleFacts, powers: Sequence[str] = ()) -> tuple[Finding, ...]:
    """Return whether the role may do enough, and not more; `powers` as in `ServerFacts`."""
    enough = _finding("privileges", "ok", "all that the jobs need")
    if role.missing:
        enough = _finding("privileges", "failed", f"missing: {_some(role.missing)}")
    found = [enough]
    if role.public_schema:
        found.append(_finding("schema public", "warning", role.public_schema))
    excess = list(_excess(role, powers))
    if not excess:
        return *found, _finding("role", "ok", "may do no more than the jobs need")
    return *found, *(_finding("role", "warning", text) for text in excess)


def partition_findings(missing_months: Sequence[str], is_rest_used: bool) -> tuple[Finding, ...]:
    """Return whether the evidence of this month and the next has partitions to go to."""
    found = []
    if missing_months:
        months = ", ".join(missing_months)
        text = f"missing for {months}: the next collect makes them, or `billing migrate`"
        found.append(_finding("partitions", "warning", text))
    if is_rest_used:
        text = "minutes came in that had none: `billing prune` gives them theirs"
        found.append(_finding("partitions", "warning", text))
    return tuple(found) or (_finding("partitions", "ok", "there for this month and the next"),)


def _excess(role: RoleFacts, powers: Sequence[str]) -> Iterator[str]:
    if role.is_superuser:
        # Everything else follows from it.
        yield "a superuser: nothing limits what a stolen password can do"
        return
    if powers:
        yield f"may do more than any job needs: {_some(powers)}"
    if role.owned_tables:
        # An owner has every privilege on its tables, which would fill the page.
        yield f"owns {_some(role.owned_tables)}: grants can't limit what it does with them"
        return
    if role.needless:
        yield f"may do more than the jobs need: {_some(role.needless)}"


def _encryption(server: ServerFacts) -> tuple[State, str]:
    if server.is_encrypted and server.is_verified:
        return "ok", "TLS, and the server proved its name"
    if server.is_local:
        how = "TLS" if server.is_encrypted else "none"
        return "ok", f"{how}; the connection stays within this machine"
    if server.is_encrypted:
        return "warning", "TLS, but to whichever server answers: set sslmode=verify-full"
    return "warning", "none: password and data are sent in the clear; set sslmode=verify-full"


def _finding(name: str, state: State, text: str) -> Finding:
    return Finding("database", name, state, text)


def _some(words: Sequence[str]) -> str:
    shown = list(words[:MAX_WORDS_SHOWN])
    if len(words) > len(shown):
        shown.append(f"and {len(words) - len(shown)} more")
    return "; ".join(shown)
