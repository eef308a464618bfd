"""The totals of a job, as values."""

from __future__ import annotations

from dataclasses import asdict
from decimal import Decimal

from billing_cli.core.totals import JobTotals
from tests.unit.core.stories import NOON


def test_the_totals_of_a_job_that_has_done_nothing_are_zero() -> None:
    """A counter starts at zero; what only an audit finds is unknown elsewhere."""
    told = asdict(JobTotals("collect", "ok", NOON, NOON))
    known = {"job": "collect", "last_status": "ok"}
    stamps = {"last_started_at": NOON, "last_finished_at": NOON, "last_success_at": None}
    unknown = {"violations": None, "notices": None}
    counters = told.keys() - known.keys() - stamps.keys() - unknown.keys()
    assert told == {**dict.fromkeys(counters, 0), **known, **stamps, **unknown}
    assert isinstance(told["charged_amount"], Decimal)
    assert isinstance(told["returned_amount"], Decimal)
