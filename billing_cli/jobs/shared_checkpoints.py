"""Which shared checkpoints a step writes, and which it leaves to a later one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet
    from datetime import datetime

    from billing_cli.database.billable import StaleCheckpoint
    from billing_cli.jobs.accounts import LockedAccounts
    from billing_cli.jobs.plans import SourcePlan
    from billing_cli.jobs.usage import Usage


def written_checkpoints(
    plans: Iterable[SourcePlan],
    stream_accounts: Mapping[str, AbstractSet[str]],
    stale: Iterable[StaleCheckpoint],
    usage: Usage,
    accounts: LockedAccounts,
) -> list[tuple[str, str, datetime]]:
    """Return node, account and the last snapshot with samples of those to be written.

    They are of the accounts of streams that change, `stream_accounts` by source, of late usage,
    and those that an earlier run left.
    """
    stamps = {
        (checkpoint.stored_node_id, checkpoint.account_uuid): checkpoint.samples_at
        for checkpoint in stale
        if checkpoint.account_uuid in accounts.kept
    }
    stamps |= usage.late_at
    for plan in plans:
        node, at = plan.identity.stored, plan.advance.samples_at or plan.watermark
        for account in (stream_accounts[plan.source_id] & accounts.kept) - plan.waiting:
            stamps[node, account] = at
    return [(node, account, at) for (node, account), at in stamps.items()]


def stale_checkpoints(
    plans: Iterable[SourcePlan],
    stream_accounts: Mapping[str, AbstractSet[str]],
    stale: Iterable[StaleCheckpoint],
    accounts: LockedAccounts,
) -> Iterator[tuple[str, str, bool]]:
    """Yield node and account, and whether their checkpoint is left to a later run.

    It is where another session holds the account, or the database refuses its charges. What an
    earlier run left is written now, unless the account is still held, or gone.
    """
    held = accounts.problems.keys() - accounts.kept
    for checkpoint in stale:
        if checkpoint.account_uuid not in held:
            yield checkpoint.stored_node_id, checkpoint.account_uuid, False
    for plan in plans:
        for account in stream_accounts[plan.source_id] & (held | plan.waiting):
            yield plan.identity.stored, account, True
