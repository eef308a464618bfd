"""Included quotas by period: each minute uses the quota of the period that it lies in.

The quota state holds the present period alone. What is left of a former one is kept with the
renewal that ended it. A renewal may become visible after minutes of the new period were charged to
the former quota: their included bytes move from that quota to the new one, and charges that one of
the two quotas now covers further are adjusted (`adjustments.use_quota_left`). So are charges of a
period to whose quota a correction returns included bytes: once the period is over, no later minute
could use them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.model import Renewal

if TYPE_CHECKING:
    from datetime import datetime

    from billing_cli.core.model import Account


class Period(NamedTuple):
    """A quota period; None where it has no beginning or end that was seen."""

    begin: datetime | None
    end: datetime | None


def period_at(account: Account, minute: datetime) -> Period:
    """Return the period that a minute lies in, as far as the account knows its renewals."""
    begin = None
    for period_start, _ in account.renewals:
        if minute < period_start:
            return Period(begin, period_start)
        begin = period_start
    return Period(begin, None)


def quota_at(account: Account, minute: datetime) -> int:
    """Return what is left, in bytes, of the quota of the period that a minute lies in."""
    for period_start, former_quota in account.renewals:
        if minute < period_start:
            return former_quota
    return account.remaining_included_quota


def use_quota(account: Account, minute: datetime, included_bytes: int) -> Account:
    """Take bytes, which may be negative, from the quota of the period that a minute lies in."""
    if not account.renewals or minute >= account.renewals[-1].period_start:
        quota = account.remaining_included_quota - included_bytes
        return account._replace(remaining_included_quota=quota)
    renewals = list(account.renewals)
    place = next(at for at, renewal in enumerate(renewals) if minute < renewal.period_start)
    left = renewals[place].former_quota - included_bytes
    renewals[place] = renewals[place]._replace(former_quota=left)
    return account._replace(renewals=tuple(renewals))


def begin_period(
    account: Account, period_start: datetime, former_quota: int, included_before: int
) -> Account:
    """Return an account, as the renewal left it, whose new period has become visible.

    `former_quota` is what our charges had left when the renewal replaced it. `included_before` are
    the included bytes of minutes of the new period that were charged until then. They move to the
    new quota, which may be below 0 until those charges are adjusted.
    """
    renewal = Renewal(period_start, former_quota + included_before)
    return account._replace(
        remaining_included_quota=account.remaining_included_quota - included_before,
        renewals=(*account.renewals, renewal),
    )
