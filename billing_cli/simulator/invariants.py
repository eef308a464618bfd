"""Holds a database against its own rules and against the truth, for tests and the demo.

Each check reads plain rows and does its arithmetic here, apart from the code that wrote them.
Violations are one-line texts; none at all is the only good answer.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from billing_cli.core.times import format_rfc3339
from billing_cli.simulator.books import Books, Bucket, Funds, read_books, read_buckets, rows
from billing_cli.simulator.evidence import evidence_violations, moved_back, read_watermarks
from billing_cli.simulator.ledger import read_charges
from billing_cli.simulator.money import money_violations
from billing_cli.simulator.oracle import BucketName
from billing_cli.simulator.process import Bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from psycopg import Connection

    from billing_cli.simulator.expectation import Expected
    from billing_cli.simulator.oracle import Bound, Oracle

__all__ = [
    "Books",
    "Funds",
    "compare_with_expected",
    "compare_with_oracle",
    "moved_back",
    "read_books",
    "read_watermarks",
    "violations",
]

# What the evidence says of each bucket, corrections included. The region is not the stream's.
READ_RECORDED_BYTES = """
SELECT record.bucket_start, stream.stored_node_id, record.account_uuid::text, stream.inbound_tag,
       sum(record.uplink_end - record.uplink_start)::bigint,
       sum(record.downlink_end - record.downlink_start)::bigint
  FROM billing.usage_records AS record
  JOIN billing.streams AS stream USING (stream_id)
  JOIN public.users ON users.uuid = record.account_uuid
 GROUP BY 1, 2, 3, 4
"""

# Usage above the plausible rate is not charged unless it was released.
READ_HELD_BYTES = """
SELECT stream.account_uuid::text,
       sum(held.uplink_end - held.uplink_start)::bigint,
       sum(held.downlink_end - held.downlink_start)::bigint
  FROM billing.held_deltas AS held
  JOIN billing.streams AS stream USING (stream_id)
 WHERE held.state <> 'released' AND stream.account_uuid IS NOT NULL
 GROUP BY 1
"""

# What flowed before an account appeared is billed when the source next moves.
READ_PENDING_BYTES = """
SELECT account.uuid::text,
       sum(pending.uplink_end - pending.uplink_start)::bigint,
       sum(pending.downlink_end - pending.downlink_start)::bigint
  FROM billing.pending_usage AS pending
  JOIN billing.streams AS stream USING (stream_id)
  JOIN public.users AS account ON stream.sample_uuid IN (account.uuid, account.proxy_uuid)
 WHERE pending.billed_at IS NULL
 GROUP BY 1
"""

# Accounts of which some bytes are billed in another minute than they flowed in.
READ_ACCOUNTS_WITH_MOVED_BYTES = """
SELECT DISTINCT account_uuid::text
  FROM billing.usage_records
 WHERE kind IN ('pending', 'released')
"""

READ_NODE_WATERMARKS = """
SELECT stored_node_id, watermark FROM billing.sources WHERE watermark IS NOT NULL
"""

READ_ACCOUNTS = """
SELECT uuid::text FROM public.users
"""

SHORTEST = timedelta(microseconds=1)
NOTHING = Bytes()


def violations(
    connection: Connection[Any],
    before: Books | None = None,
    top_ups: Mapping[str, Funds] | None = None,
) -> list[str]:
    """Return every broken invariant (I1 to I4) as one line each.

    `before` is where the shared tables stood before billing first ran (default: empty, funds 0);
    `top_ups` what accounts got since then without a ledger row.
    """
    before = before or Books()
    return [
        *_bytes_agree(connection, before),
        *money_violations(connection, before, top_ups or {}),
        *evidence_violations(connection),
    ]


def compare_with_oracle(
    connection: Connection[Any],
    oracle: Oracle,
    until: Bound = None,
    *,
    buckets: bool = True,
    pending_allowed: bool = False,
) -> list[str]:
    """Return where what is billed differs from what flowed (I5), as one line each.

    `until` is exclusive; by default each source counts up to its own watermark, and one that
    never applied a snapshot must have billed nothing. Deltas that are held count as not billed;
    with `pending_allowed` so does usage whose account has appeared since its source last moved.
    With `buckets`, every single minute must be right too, except of accounts of which bytes are
    held or pending or were so: those are billed in the minute of the decision.
    """
    if until is None:
        reached = dict(rows(connection, READ_NODE_WATERMARKS))
        until = {
            node.identity.stored: reached[node.identity.stored] + SHORTEST
            if node.identity.stored in reached
            else oracle.fleet.start
            for node in oracle.fleet.nodes.values()
        }
    billed: dict[BucketName, Bytes] = defaultdict(Bytes)
    by_account: dict[str, Bytes] = defaultdict(Bytes)
    for key, moved, _ in read_buckets(connection):
        name = BucketName(key.bucket_start, key.stored_node_id, key.account_uuid, key.line_code)
        billed[name] = billed[name].plus(Bytes(*moved[:2]))
        by_account[key.account_uuid] = by_account[key.account_uuid].plus(Bytes(*moved[:2]))
    moved_accounts = {row[0] for row in rows(connection, READ_ACCOUNTS_WITH_MOVED_BYTES)}
    waiting = rows(connection, READ_HELD_BYTES)
    waiting += rows(connection, READ_PENDING_BYTES) if pending_allowed else []
    for account, uplink, downlink in waiting:
        by_account[account] = by_account[account].plus(Bytes(uplink, downlink))
        moved_accounts.add(account)

    found = list(_differences("account", by_account, oracle.bytes_by_account(until)))
    if buckets:
        found_bytes, true = (
            {
                f"{format_rfc3339(name.bucket_start)} {' '.join(name[1:])}": moved
                for name, moved in side.items()
                if name.account_uuid not in moved_accounts
            }
            for side in (billed, oracle.bytes_by_bucket(until))
        )
        found.extend(_differences("bucket", found_bytes, true))
    return found


def compare_with_expected(
    connection: Connection[Any], stored_node_id: str, expected: Mapping[str, Expected]
) -> list[str]:
    """Return the accounts whose bytes on a node are not what they must be, one line each.

    `expected` is what `expectation.expected_by_account` says. Whatever an account is charged, in
    whichever minute and under whichever tag, counts; users without an account are charged nothing.
    """
    billed: dict[str, Bytes] = defaultdict(Bytes)
    for key, moved, _ in read_buckets(connection):
        if key.stored_node_id == stored_node_id:
            billed[key.account_uuid] = billed[key.account_uuid].plus(Bytes(*moved[:2]))
    known = {row[0] for row in rows(connection, READ_ACCOUNTS)}
    return [
        f"account {account}: billed {_text(billed.get(account, NOTHING))}, "
        f"expected {_text(bounds.low)} to {_text(bounds.high)}"
        for account, bounds in sorted(expected.items())
        if account in known and not bounds.allows(billed.get(account, NOTHING))
    ]


def _text(moved: Bytes) -> str:
    return f"{moved.uplink} up / {moved.downlink} down"


def _differences(
    what: str, billed: Mapping[str, Bytes], true: Mapping[str, Bytes]
) -> Iterator[str]:
    for name in sorted(billed.keys() | true.keys()):
        charged, flowed = billed.get(name, NOTHING), true.get(name, NOTHING)
        if charged != flowed:
            yield (
                f"{what} {name}: billed {charged.uplink} up / {charged.downlink} down, "
                f"flowed {flowed.uplink} up / {flowed.downlink} down"
            )


def _bytes_agree(connection: Connection[Any], before: Books) -> Iterator[str]:
    """Check each bucket: its bytes are those of its records, and those that were charged."""
    recorded = {
        BucketName(*row[:4]): Bytes(*row[4:]) for row in rows(connection, READ_RECORDED_BYTES)
    }
    charged: dict[Bucket, int] = defaultdict(int)
    for charge in read_charges(connection).values():
        charged[charge.bucket] += charge.included_bytes + charge.rated_bytes
    shown: dict[BucketName, Bytes] = defaultdict(Bytes)
    for key, moved, rating_status in read_buckets(connection):
        name = BucketName(key.bucket_start, key.stored_node_id, key.account_uuid, key.line_code)
        where = f"bucket {format_rfc3339(key.bucket_start)} {' '.join(key[1:])}"
        earlier = before.buckets.get(key, (0, 0, 0))
        uplink, downlink, total = (now - then for now, then in zip(moved, earlier, strict=True))
        shown[name] = shown[name].plus(Bytes(uplink, downlink))
        if uplink + downlink != total:
            yield f"{where}: {uplink} up and {downlink} down are not {total} in total"
        if charged.pop(key, 0) != total:
            yield f"{where}: shows {total} bytes, another number was charged"
        if key not in before.buckets and rating_status != "rated":
            yield f"{where}: is {rating_status!r}"
    for key, total in charged.items():
        if total:
            yield f"charges of {total} bytes for a missing bucket {' '.join(map(str, key))}"
    for name in sorted(shown.keys() | recorded.keys()):
        if shown.get(name, NOTHING) != recorded.get(name, NOTHING):
            where = f"bucket {format_rfc3339(name.bucket_start)} {' '.join(name[1:])}"
            bucket, proven = shown.get(name, NOTHING), recorded.get(name, NOTHING)
            yield f"{where}: shows {tuple(bucket)}, its records say {tuple(proven)}"
