"""Under which names an exporter publishes the counters of a process.

A `Naming` maps a counter to the names that it is published under: one of them, as a rule. Where
several counters get the same name their totals are added up. Replacing the naming of a node is
what an upgrade of its exporter does: the process, and so the totals, go on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from billing_cli.core.model import StreamName, Totals

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from billing_cli.simulator.process import Stream

Naming = Callable[[StreamName], tuple[StreamName, ...]]
"""Returns the names of a counter, the first of which counts as its own; duplicates follow."""


def as_counted(name: StreamName) -> tuple[StreamName, ...]:
    """One sample for each counter, under its own name."""
    return (name,)


def merged(name: StreamName) -> tuple[StreamName, ...]:
    """One sample for each user, whatever the inbound: tag ""."""
    return (StreamName("", name.sample_uuid),)


def retagged(tags: Mapping[str, str]) -> Naming:
    """Publish inbounds under other tags; those of one tag are added up."""
    return lambda name: (name._replace(inbound_tag=tags.get(name.inbound_tag, name.inbound_tag)),)


def with_uuids(uuids: Mapping[str, str]) -> Naming:
    """Publish users under other uuids, such as the account's in place of the proxy's."""
    return lambda name: (name._replace(sample_uuid=uuids.get(name.sample_uuid, name.sample_uuid)),)


def both(*namings: Naming) -> Naming:
    """Publish each counter once by each naming: every one but the first is a duplicate."""
    return lambda name: tuple(
        dict.fromkeys(published for naming in namings for published in naming(name))
    )


def in_turn(*namings: Naming) -> Naming:
    """Apply one naming to the names that another gives, from left to right."""

    def named(name: StreamName) -> tuple[StreamName, ...]:
        names: tuple[StreamName, ...] = (name,)
        for naming in namings:
            names = tuple(dict.fromkeys(new for former in names for new in naming(former)))
        return names

    return named


def publish(
    naming: Naming, counters: Iterable[tuple[Stream, int, int]]
) -> dict[StreamName, tuple[Totals, str]]:
    """Return the published totals and e-mail by name, in the order of the counters."""
    published: dict[StreamName, tuple[Totals, str]] = {}
    for stream, uplink, downlink in counters:
        for name in naming(stream.name):
            before, email = published.get(name, (Totals(0, 0), stream.email))
            published[name] = Totals(before.uplink + uplink, before.downlink + downlink), email
    return published
