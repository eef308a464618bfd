"""What asking an exporter showed, as values: `check` judges it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from datetime import datetime

    from billing_cli.core.model import NodeIdentity

Stage = Literal["credentials", "connection", "authentication", "answer"]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a source could not be asked to the end: how far that came, and one line."""

    stage: Stage
    reason: str


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What asking a source showed. What was not found out is None, and `failure` says why.

    `endpoint` is `host:port`, `protocol` such as `TLSv1.3`, or None for plain HTTP, which
    `is_exposed` where it leaves this machine. `shown` are what we prove ourselves with. The
    expiries are those of the exporter's certificate, of ours, and of the last of the authorities
    that the source trusts instead of the system's. `clock_difference_seconds` is the exporter's
    clock minus ours. Times are of this machine's clock, except those of snapshots: the newest
    snapshot was looked for at `asked_at`, and where it was not found, from `searched_since` on.
    """

    endpoint: str = ""
    protocol: str | None = None
    is_exposed: bool = False
    shown: tuple[str, ...] = ()
    has_answered: bool = False
    is_accepted: bool = False
    certificate_expires_at: datetime | None = None
    client_certificate_expires_at: datetime | None = None
    authorities_expire_at: datetime | None = None
    contract: Literal["window", "latest"] | None = None
    identity: NodeIdentity | None = None
    oldest_at: datetime | None = None
    newest_at: datetime | None = None
    searched_since: datetime | None = None
    asked_at: datetime | None = None
    clock_difference_seconds: float | None = None
    notes: tuple[str, ...] = ()
    failure: Failure | None = None
