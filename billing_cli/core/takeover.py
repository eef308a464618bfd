"""Going on from what a legacy writer left: its totals per account, its charged minutes.

The legacy writer keeps one pair of totals for an account on a node, whatever inbounds the account
uses there. Our streams are finer, so its totals are split where an account has several.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Literal, NamedTuple

from billing_cli.core.model import Bucket, BucketKey, Checkpoint, Totals

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime

    from billing_cli.core.model import Snapshot, StreamName


class LegacyCheckpoint(NamedTuple):
    """An account's totals on a node, summed over its inbounds, as a legacy writer left them."""

    seen_at: datetime
    totals: Totals


def split_checkpoints(
    snapshots: Sequence[Snapshot],
    accounts: Mapping[StreamName, str],
    legacy: Mapping[str, LegacyCheckpoint],
) -> dict[StreamName, Checkpoint]:
    """Return the checkpoint from which each stream goes on, for accounts the legacy writer knew.

    An account with one stream goes on from the legacy totals. With several, those are split in
    proportion to the streams' totals when the legacy writer read them, or next after it, so that
    their sum is exact and no stream seems to have restarted. Where the sum has fallen, the counters
    restarted, and each goes on from zero. What the legacy writer read already is passed over.
    """
    names_by_account: defaultdict[str, set[StreamName]] = defaultdict(set)
    for name, account in accounts.items():
        if account in legacy:
            names_by_account[account].add(name)
    checkpoints: dict[StreamName, Checkpoint] = {}
    for account, names in names_by_account.items():
        seen_at, whole = legacy[account]
        before, current = _totals_around(snapshots, names, seen_at)
        totals = {**before, **_shares(whole, current)}
        checkpoints |= {name: Checkpoint(seen_at, part) for name, part in totals.items()}
    return checkpoints


def _totals_around(
    snapshots: Sequence[Snapshot], names: AbstractSet[StreamName], seen_at: datetime
) -> tuple[dict[StreamName, Totals], dict[StreamName, Totals]]:
    """Return the last totals of an account's streams before `seen_at`, and the first ones since.

    Streams that appear once others are gone are not among these: they continue those.
    """
    before: dict[StreamName, Totals] = {}
    current: dict[StreamName, Totals] = {}
    for snapshot in snapshots:
        present = {name: snapshot.totals[name] for name in names & snapshot.totals.keys()}
        if snapshot.collected_at < seen_at:
            before |= present
        elif current.keys() <= present.keys():
            current = present | current
        elif present:
            break
    return before, current


def _shares(whole: Totals, current: Mapping[StreamName, Totals]) -> dict[StreamName, Totals]:
    if len(current) == 1:
        return dict.fromkeys(current, whole)
    names = sorted(current)
    uplinks = _split(whole.uplink, [current[name].uplink for name in names])
    downlinks = _split(whole.downlink, [current[name].downlink for name in names])
    if uplinks is None or downlinks is None:
        uplinks = downlinks = [0] * len(names)
    return {
        name: Totals(uplink, downlink)
        for name, uplink, downlink in zip(names, uplinks, downlinks, strict=True)
    }


def _split(whole: int, shares: Sequence[int]) -> list[int] | None:
    """Split a whole in proportion to the shares, none above its share; None if it exceeds all."""
    total = sum(shares)
    if whole > total:
        return None
    if total == 0:
        return [0] * len(shares)
    parts = [whole * share // total for share in shares]
    rest = whole - sum(parts)
    for place, share in enumerate(shares):
        if rest and parts[place] < share:
            parts[place] += 1
            rest -= 1
    return parts


Overlap = Literal["identical", "different", "added"]


def beyond_charged(bucket: Bucket, charged: Totals, first_from: datetime) -> tuple[Overlap, Bucket]:
    """Return what of a bucket is not in the bytes that a legacy writer charged for its minute.

    `first_from` is where the bucket's evidence begins. Evidence that begins within the minute
    starts from totals that hold the legacy charge, so all of it comes on top (`added`). Evidence
    that begins before the minute covers the same bytes once more: what is `identical` is a
    replay, and of what is `different` only the surplus is left.
    """
    key: BucketKey = bucket.key
    if first_from >= key.bucket_start:
        return "added", bucket
    uplink = max(0, bucket.uplink_bytes - charged.uplink)
    downlink = max(0, bucket.downlink_bytes - charged.downlink)
    same = (bucket.uplink_bytes, bucket.downlink_bytes) == charged
    return ("identical" if same else "different"), Bucket(key, uplink, downlink)


def first_from_by_bucket(
    evidence: Iterable[tuple[BucketKey, datetime]],
) -> dict[BucketKey, datetime]:
    """Return where the evidence of each bucket begins, from (bucket, record's from_at) pairs."""
    first: dict[BucketKey, datetime] = {}
    for key, from_at in evidence:
        if key not in first or from_at < first[key]:
            first[key] = from_at
    return first
