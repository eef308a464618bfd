"""What an audit looks at: one account, everything, or what was written since the last clean one."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from billing_cli.core.times import minute_of
from billing_cli.database import arrays
from billing_cli.database.partitions import read_evidence_since
from billing_cli.features.audit import queries_positions as positions
from billing_cli.features.audit.queries_former import read_former_streams

if TYPE_CHECKING:
    from datetime import datetime

    from psycopg import Connection

# Whoever restores an old balance has read it within a day; see `core.funds.LATEST`.
FUNDS_WINDOW = timedelta(hours=25)


@dataclass(frozen=True, slots=True)
class Scope:
    """What is audited, and the parameters that statements get.

    `since` is the first minute of which facts are read, None where all are. An incremental audit
    takes what was there before `proven_at` for proven, but for `new_seals`. `former_streams` are
    streams that the account had, and another one has now.
    """

    account_uuid: str | None = None
    since: datetime | None = None
    proven_at: datetime | None = None
    horizon: datetime | None = None
    new_seals: int = 0
    last_minute: datetime | None = None
    kept_since: datetime | None = None
    former_streams: tuple[int, ...] = ()
    seed: int = field(default_factory=lambda: secrets.randbits(62))
    factor: int = field(default_factory=lambda: 1 + secrets.randbits(30))

    @property
    def is_incremental(self) -> bool:
        """Return whether an earlier audit has proven the rest."""
        return self.proven_at is not None

    @property
    def funds_range(self) -> tuple[datetime, datetime] | None:
        """The minutes whose charges explain changes of funds; None for all."""
        if self.proven_at is None:
            return None
        first = min(self.since or self.proven_at, self.proven_at)
        return minute_of(first - FUNDS_WINDOW), self.last_minute or self.proven_at

    def parameters(self, **others: Any) -> dict[str, Any]:
        """Return what statements are filled in with."""
        return {
            "account": self.account_uuid,
            "since": self.first_minute,
            "until": "infinity",
            "horizon": self.horizon,
            "proven_at": self.proven_at,
            "former_streams": arrays.plain(self.former_streams),
            "seed": self.seed,
            "factor": self.factor,
            **others,
        }

    @property
    def first_kept_minute(self) -> datetime | str:
        """The first minute of which rows are compared; of pruned months only sums are."""
        if self.kept_since is None or (self.is_incremental and self.since is None):
            return self.first_minute
        return max(self.since or self.kept_since, self.kept_since)

    @property
    def first_minute(self) -> datetime | str:
        """The same as `since`, for the server; nothing is read where nothing is new."""
        if self.since is not None:
            return self.since
        return "infinity" if self.is_incremental else "-infinity"


def scope_of(connection: Connection, account_uuid: str | None, *, is_full: bool) -> Scope:
    """Return what to audit: all of one account, or of all accounts what is not proven yet."""
    if account_uuid is not None:
        former_streams = read_former_streams(connection, account_uuid)
        return Scope(account_uuid, former_streams=former_streams)
    last = None if is_full else connection.execute(positions.READ_LAST_CLEAN).fetchone()
    kept_since = read_evidence_since(connection)
    if last is None:
        return Scope(kept_since=kept_since)
    proven_at, horizon = last
    found = connection.execute(positions.READ_NEW_SEALS, {"horizon": horizon}).fetchone()
    new_seals, since, last_minute = found or (0, None, None)
    return Scope(None, since, proven_at, horizon, new_seals, last_minute, kept_since)
