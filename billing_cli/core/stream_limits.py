"""How many streams a node may have, and how many new ones within an hour.

Credit limits bytes. These limits bound the rows that a node which invents names can cause.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from billing_cli.core.model import DeltaPolicy

HOUR = timedelta(hours=1)


# No upgrade of an exporter renames more counters within an hour: the largest nodes have as many.
MAX_SUCCESSIONS_PER_HOUR = 100_000


class NewStreams(NamedTuple):
    """How many streams a snapshot named first, and whether their uuid identifies an account.

    Those that took over the counters of others (`is_succession`) have a limit of their own.
    """

    at: datetime
    is_unresolved: bool
    streams: int
    is_succession: bool = False


def excess(
    policy: DeltaPolicy, new: Iterable[NewStreams], streams_by_account: Mapping[str, int]
) -> str | None:
    """Return which limit is exceeded, in words; None where none is.

    `new` are new streams of the node, those of the hour before included. `streams_by_account`
    counts all streams of the accounts that have new ones. A limit of 0 is none.
    """
    found = list(new)
    streams = [group for group in found if not group.is_succession]
    successions = [group for group in found if group.is_succession]
    most_successions = max(policy.max_new_streams_per_hour, MAX_SUCCESSIONS_PER_HOUR)
    unresolved = [group for group in streams if group.is_unresolved]
    most = max(streams_by_account, key=lambda account: streams_by_account[account], default="")
    for key, limit, count, what in (
        (
            "max_streams_per_account",
            policy.max_streams_per_account,
            streams_by_account.get(most, 0),
            f"streams of account {most}",
        ),
        (
            "max_new_streams_per_hour",
            policy.max_new_streams_per_hour,
            most_within_an_hour(streams),
            "new streams within an hour",
        ),
        (
            "max_unresolved_streams_per_hour",
            policy.max_unresolved_streams_per_hour,
            most_within_an_hour(unresolved),
            "new streams without an account within an hour",
        ),
        (
            "the most that any node has",
            most_successions if policy.max_new_streams_per_hour else 0,
            most_within_an_hour(successions),
            "renamed streams within an hour",
        ),
    ):
        if 0 < limit < count:
            return f"{count} {what}, more than {key} ({limit})"
    return None


def most_within_an_hour(streams: Iterable[NewStreams]) -> int:
    """Return the most streams that are new within any hour, both ends not included together."""
    counts: Counter[datetime] = Counter()
    for group in streams:
        counts[group.at] += group.streams
    stamps = sorted(counts)
    first = most = total = 0
    for at in stamps:
        total += counts[at]
        while at - stamps[first] >= HOUR:
            total -= counts[stamps[first]]
            first += 1
        most = max(most, total)
    return most
