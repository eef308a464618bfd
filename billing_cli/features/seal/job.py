"""`seal`: one transaction that appends committed seals and ended days to the log, and signs it.

No collector waits for it: what it locks is the row of the head, and seals that are committed.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, date, datetime
from hashlib import sha256
from itertools import groupby
from typing import TYPE_CHECKING

from billing_cli.core.merkle import LeafRange, TreeBuilder, levels_of, peak_places, root_of_range
from billing_cli.core.notes import Checkpoint, parse_checkpoint
from billing_cli.core.seals import (
    SALT_BYTES,
    AccountDay,
    SealedDay,
    account_leaf,
    day_leaf,
    salt_line,
    seal_leaf,
)
from billing_cli.database.schema import require_head
from billing_cli.database.seals import (
    LOG_TREE,
    add_nodes,
    read_booked,
    read_head,
    read_nodes,
    tree_of_day,
)
from billing_cli.errors import BillingError, SchemaError
from billing_cli.features.seal import queries as store
from billing_cli.features.seal.result import SealResult
from billing_cli.jobs.run_history import in_one_transaction
from billing_cli.signatures import sign_checkpoint, signature_problem

if TYPE_CHECKING:
    from psycopg import Connection

    from billing_cli.core.notes import SignedCheckpoint, SignerKey, VerifierKey
    from billing_cli.database.seals import LogHead
    from billing_cli.jobs.context import JobContext

JOB = "seal"
SEALS_AT_ONCE = 5_000


def seal(
    context: JobContext,
    keys: tuple[SignerKey, VerifierKey],
    *,
    kept: SignedCheckpoint | None = None,
) -> SealResult:
    """Append what was committed since the last time, and sign the head of the log.

    `kept` is the newest checkpoint that is kept elsewhere: nothing is signed that does not continue
    it. Where nothing is new, the checkpoint stays as it is, unless another key signed it. Raises
    BillingError where the log was changed, or the database refuses.
    """
    started_at = context.clock()

    def work(connection: Connection) -> SealResult:
        require_head(connection)
        head = read_head(connection, is_locked=True)
        if not head.is_adopted:
            raise SchemaError(
                "facts of an earlier version are not sealed yet; run `billing migrate`"
            )
        log = _open_log(connection, head, kept)
        now = _now(context, connection)  # One for both: at midnight a day must have ended in both.
        days = _append_days(connection, log, now)
        seals = _append_seals(connection, log, now)
        note = _sign(head, log, keys)
        if note != head.note:
            store.update_head(connection, log.size, note, context.clock())
        return SealResult(
            job=JOB,
            run_id=context.run_id,
            status="ok",
            started_at=started_at,
            finished_at=context.clock(),
            tree_size=log.size,
            appended_seals=seals,
            sealed_days=tuple(days),
            checkpoint=note,
        )

    return in_one_transaction(context, JOB, started_at, work, dry_run=False)


def _open_log(connection: Connection, head: LogHead, kept: SignedCheckpoint | None) -> TreeBuilder:
    """Return the log. Raises BillingError where it is not what was signed."""
    places = peak_places(head.tree_size)
    nodes = read_nodes(connection, LOG_TREE, places)
    if len(nodes) < len(places):
        raise BillingError(f"nodes of the log are missing: {VERIFY}")
    log = TreeBuilder(head.tree_size, [nodes[place] for place in places])
    if head.note is not None:
        signed = parse_checkpoint(head.note).checkpoint
        if (signed.size, signed.root) != (log.size, log.root()):
            raise BillingError(f"the log is not what its newest checkpoint says: {VERIFY}")
    if kept is not None:
        _require_continued(connection, log, kept.checkpoint)
    return log


VERIFY = "nothing is signed, `billing verify` shows details"


def _require_continued(connection: Connection, log: TreeBuilder, kept: Checkpoint) -> None:
    if kept.size > log.size:
        raise BillingError(
            f"the log has {log.size} leaves, and the newest checkpoint that is kept has "
            f"{kept.size}: {VERIFY}"
        )
    nodes = read_nodes(connection, LOG_TREE, peak_places(kept.size))
    places = peak_places(kept.size)
    if len(nodes) < len(places) or root_of_range(LeafRange(0, kept.size), nodes) != kept.root:
        raise BillingError(
            f"the log does not continue the newest checkpoint that is kept: {VERIFY}"
        )


def _now(context: JobContext, connection: Connection) -> datetime:
    """Return the time, never before the newest leaf: a day that was sealed has ended."""
    last = store.read_last_appended(connection)
    return max(context.clock(), last) if last is not None else context.clock()


def _append_days(connection: Connection, log: TreeBuilder, now: datetime) -> list[date]:
    """Append a leaf for each day of booking that has ended; return the days."""
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    days = []
    for day, bounds in store.read_ended_days(connection, today):
        accounts = _account_leaves(connection, day, bounds)
        nodes = list(levels_of([account.leaf for account in accounts]))
        tree = TreeBuilder()
        salts = sha256()
        for account in accounts:
            tree.append(account.leaf)
            salts.update(salt_line(account.account_uuid, account.salt))
        sealed = SealedDay(day, len(accounts), salts.digest(), tree.root())
        add_nodes(connection, tree_of_day(day), nodes)
        store.add_day(
            connection,
            sealed,
            ((account.account_uuid, account.salt) for account in accounts),
            log.size,
            now,
        )
        add_nodes(connection, LOG_TREE, log.append(day_leaf(sealed)))
        days.append(day)
    return days


@dataclass(frozen=True, slots=True)
class _AccountLeaf:
    account_uuid: str
    salt: bytes
    leaf: bytes


def _account_leaves(
    connection: Connection, day: date, bounds: dict[str, object]
) -> list[_AccountLeaf]:
    leaves = []
    booked = read_booked(connection, bounds)
    for account_uuid, charges in groupby(booked, key=lambda charge: charge[0]):
        totals = AccountDay(account_uuid, day)
        for _, place, line in charges:
            totals.add(line, place)
        salt = secrets.token_bytes(SALT_BYTES)
        leaves.append(_AccountLeaf(account_uuid, salt, account_leaf(totals.content(), salt)))
    return leaves


def _append_seals(connection: Connection, log: TreeBuilder, now: datetime) -> int:
    """Append all committed seals that have no leaf yet; return how many."""
    count = 0
    while seals := store.read_waiting(connection, SEALS_AT_ONCE):
        first_leaf = log.size
        nodes = [node for seal in seals for node in log.append(seal_leaf(seal))]
        if store.append(connection, seals, first_leaf, now) != len(seals):
            raise BillingError("another run appended seals; run it again")
        add_nodes(connection, LOG_TREE, nodes)
        count += len(seals)
    return count


def _sign(head: LogHead, log: TreeBuilder, keys: tuple[SignerKey, VerifierKey]) -> str:
    signer, verifier = keys
    checkpoint = Checkpoint(signer.name, log.size, log.root())
    if head.note is not None:
        signed = parse_checkpoint(head.note)
        if signed.checkpoint == checkpoint and signature_problem(signed, [verifier]) is None:
            return head.note
    return sign_checkpoint(checkpoint, signer)
