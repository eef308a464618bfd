"""Daily maxima within a run: which of them hold, and which usage is above one."""

from __future__ import annotations

from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING

from billing_cli.core.daily_maximum import Payer, above_maximum, amounts_of, payers
from billing_cli.core.model import Bucket
from billing_cli.database.adjustments import read_bucket_histories
from billing_cli.database.daily_charges import (
    add_daily_charges,
    lock_daily_charges,
    read_released,
)
from billing_cli.database.sources import read_sources
from billing_cli.jobs.quota_periods import requote

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from psycopg import Connection

    from billing_cli.core.model import BucketKey, Charge
    from billing_cli.jobs.context import JobContext
    from billing_cli.jobs.quota_periods import OpenedPeriods

Maxima = dict[Payer, Decimal]


def _maxima_of(
    context: JobContext, keys: Iterable[BucketKey], sources: Mapping[str, str]
) -> Maxima:
    """Return the maxima that hold for buckets; `sources` are source ids by stored node id."""
    tariff = context.tariff
    configured = {source.source_id: source.max_daily_charge for source in context.sources}
    if not (
        tariff.max_daily_charge or tariff.max_daily_charge_per_source or any(configured.values())
    ):
        return {}
    maxima: Maxima = {}
    for key in keys:
        own = configured.get(sources.get(key.stored_node_id, ""))
        most = tariff.max_daily_charge_per_source if own is None else own
        if most:
            maxima[Payer("node", key.stored_node_id)] = most
        if tariff.max_daily_charge:
            maxima[Payer("account", key.account_uuid)] = tariff.max_daily_charge
    return maxima


def find_above(
    context: JobContext,
    connection: Connection,
    fresh: Sequence[Bucket],
    late: Sequence[Bucket],
    opened: OpenedPeriods,
    sources: Mapping[str, str],
) -> set[BucketKey]:
    """Return the buckets above a maximum; `sources` are the ids of the nodes' sources.

    The accounts and the sources are locked; the sums of the nodes' days are from here on.
    """
    growth = {bucket.key: bucket.total_bytes for bucket in (*fresh, *late)}
    above = find_growth_above(context, connection, growth, opened, sources)
    if not above:
        return above
    # A replay is charged already, and is among what its day had before.
    charged = read_bucket_histories(connection, above & {bucket.key for bucket in fresh})
    return above - {key for key, history in charged.items() if history.is_charged}


def find_growth_above(
    context: JobContext,
    connection: Connection,
    growth: Mapping[BucketKey, int],
    opened: OpenedPeriods,
    sources: Mapping[str, str],
) -> set[BucketKey]:
    """Return the minutes to which bytes can't be added below a maximum.

    `growth` are the bytes that were found later. Minutes of a renewed period that were charged
    before use its quota first. The accounts and the sources are locked; the sums of the nodes' days
    are from here on.
    """
    maxima = _maxima_of(context, growth, sources)
    if not maxima:
        return set()
    buckets = [Bucket(key, 0, size_bytes) for key, size_bytes in growth.items()]
    days = {payer for key in growth for payer in payers(key) if payer[0] in maxima}
    requoted = requote(opened, context.tariff.peak_hours)
    before, given_back = lock_daily_charges(connection, days), amounts_of(requoted.charges, maxima)
    nothing = Decimal(0)
    charged = {
        day: max(before.get(day, nothing) + given_back.get(day, nothing), nothing) for day in days
    }
    return above_maximum(buckets, requoted.accounts, charged, maxima, context.tariff.peak_hours)


def note_charged(
    context: JobContext,
    connection: Connection,
    charges: Iterable[Charge],
    sources: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Count what was charged to those that have a maximum; what was given back makes room.

    The charges can be of other nodes than those that the job is about: quota that is free again
    goes to any. `sources` are the ids of the nodes' sources, as far as the caller knows them. What
    `held release` charged does not count, nor what adjusts it: a person decided about it.
    """
    entries = list(charges)
    if any(charge.key.stored_node_id not in sources for charge in entries):
        sources = {**_sources_by_node(context, connection), **sources}
    maxima = _maxima_of(context, (charge.key for charge in entries), sources)
    if not maxima:
        return
    released = read_released(connection, entries)
    counted = (charge for charge in entries if charge.adjusts not in released)
    add_daily_charges(connection, amounts_of(counted, maxima))


def _sources_by_node(context: JobContext, connection: Connection) -> dict[str, str]:
    """Return the configured sources' ids by the stored ids of their nodes, former ones included.

    None where no source has a maximum of its own: nothing is read then.
    """
    if all(source.max_daily_charge is None for source in context.sources):
        return {}
    states = read_sources(connection, sorted(source.source_id for source in context.sources))
    return {
        node: source_id
        for source_id, state in states.items()
        if state.identity is not None
        for node in (state.identity.stored, *state.former_nodes)
    }
