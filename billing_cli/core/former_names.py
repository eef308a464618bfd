"""Names that return after an upgrade was rolled back: which of them count from zero.

Their counters continued under other names. A former name may count the same bytes once more, and
is held as a duplicate then; after a restart it counts bytes of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.core.changes import by_account
from billing_cli.core.succession import covers, total_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from billing_cli.core.changes import Changes
    from billing_cli.core.model import Checkpoint, Snapshot, StreamName, Succession, Totals


def names_from_zero(
    changes: Changes,
    snapshot: Snapshot,
    successions: Iterable[Succession],
    twins: Collection[StreamName],
    known: Mapping[StreamName, Checkpoint],
    account_of: Callable[[StreamName], str],
) -> set[StreamName]:
    """Return the former names in a snapshot that count from zero, if they take nothing over.

    They do where the names of their account share what is gone, or its counters restarted; but not
    `twins`, which have as much as another stream of the snapshot.
    """
    former = {name: totals for name, totals in changes.new.items() if name in known}
    if not former:
        return set()
    begun = shared_out(successions, snapshot, account_of)
    begun |= restarted_accounts(former, changes, snapshot, twins, known, account_of)
    return {name for name in former if name not in twins and account_of(name) in begun}


def shared_out(
    successions: Iterable[Succession], snapshot: Snapshot, account_of: Callable[[StreamName], str]
) -> set[str]:
    """Return the accounts whose names share what is gone: each counts bytes of its own.

    They do not where one counts as much as all the others: it counts the same bytes.
    """
    accounts = {
        account_of(side.name)
        for succession in successions
        if succession.kind == "renamed"
        for side in succession.continued
    }
    if not accounts:
        return set()
    counted = by_account(
        (
            (name, totals)
            for name, totals in snapshot.totals.items()
            if account_of(name) in accounts
        ),
        account_of,
    )
    sums = {account: total_of(counted[account].values()) for account in accounts}
    return {
        account
        for account, total in sums.items()
        if all(total_of((totals, totals)) != total for totals in counted[account].values())
    }


def restarted_accounts(
    former: Mapping[StreamName, Totals],
    changes: Changes,
    snapshot: Snapshot,
    twins: Collection[StreamName],
    known: Mapping[StreamName, Checkpoint],
    account_of: Callable[[StreamName], str],
) -> set[str]:
    """Return the accounts whose counters restarted, as their `former` names show.

    Where one returns below the totals at which it was continued, all did whose streams are gone.
    Where another counter of the node fell, those did that count less than what is gone, and more
    than the other names of their account, which did not fall, can have counted as well. Nothing
    else tells them from an older reading, and from names of which only a part is back.
    """
    gone = by_account(
        ((name, totals) for name, totals in changes.gone.items() if known[name].state == "active"),
        account_of,
    )
    if not all(covers(totals, known[name].totals) for name, totals in former.items()):
        return set(gone)
    if not changes.decreased:
        return set()
    back = by_account(former.items(), account_of)
    others = by_account(
        (
            (name, totals)
            for name, totals in snapshot.totals.items()
            if name not in twins
            and name not in changes.decreased
            and (name not in known or known[name].state == "active")
        ),
        account_of,
    )
    restarted = set()
    for account, streams in gone.items():
        counted = total_of(back.get(account, {}).values())
        is_less = not covers(counted, total_of(streams.values()))
        if is_less and not covers(total_of(others.get(account, {}).values()), counted):
            restarted.add(account)
    return restarted
