"""What our own charges of minutes hold: the legacy writer's are corrected by nobody."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from billing_cli.core.model import BucketKey
from billing_cli.database.adjustments import read_own_bytes
from billing_cli.jobs.credit import cell_key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg import Connection

    from billing_cli.core.corrections import Difference
    from billing_cli.database.reconcile import StoredCell
    from billing_cli.jobs.differences import Finding


def own_bytes(connection: Connection, keys: Iterable[BucketKey]) -> Counter[BucketKey]:
    """Return the bytes that we charged of minutes in all regions, by their keys without region."""
    own: Counter[BucketKey] = Counter()
    for key, size_bytes in read_own_bytes(connection, keys).items():
        own[key._replace(region="")] += size_bytes
    return own


def without_legacy_charges(connection: Connection, finding: Finding) -> Finding:
    """Leave out cells that take bytes from a minute beyond our own charges of it.

    The legacy writer charged them there: moved, they would be charged again.
    """
    node = finding.history_range.stored_node_id

    def key_of(stored: StoredCell, difference: Difference) -> BucketKey:
        tag = difference.cell.record.name.inbound_tag
        return BucketKey(difference.minute, node, stored.account_uuid, "", tag)

    taken: Counter[BucketKey] = Counter()
    cells = []
    for stored, difference in finding.different:
        less = sum(difference.recorded) - sum(difference.shown)
        if less > 0:
            taken[key_of(stored, difference)] += less
            cells.append((key_of(stored, difference), cell_key(stored)))
    if not taken:
        return finding
    own = own_bytes(connection, taken)
    left_out = {cell for key, cell in cells if own[key] < taken[key]}
    different = [one for one in finding.different if cell_key(one[0]) not in left_out]
    return replace(finding, different=different, skipped=finding.skipped + len(left_out))
