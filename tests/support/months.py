"""The end of a month, by the clock of the machine, which no test should lie across."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

# Longer than any of the tests takes that care.
LAST_SECONDS = timedelta(seconds=45)
# The server's clock may be another one.
SHORTLY_AFTER = timedelta(seconds=2)


def wait_for_the_next_month() -> None:
    """Wait until the month is over, where that is about to happen."""
    now = datetime.now(UTC)
    next_month = (now + LAST_SECONDS).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    if now < next_month:
        time.sleep((next_month + SHORTLY_AFTER - now).total_seconds())
