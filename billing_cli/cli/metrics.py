"""Metrics in Prometheus' text format. The reference page of the docs is made of it.

The label that names the job is `command`: Prometheus sets one called `job` by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, get_args

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from billing_cli.core.model import GapKind
from billing_cli.core.result import RunStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from prometheus_client.core import Metric, Sample

    from billing_cli.core.result import RunResult
    from billing_cli.core.source_status import SourceStatus
    from billing_cli.core.totals import JobTotals, StoredMetrics

# Each field of a job's totals that is a counter: its metric, without `_total`, and what it counts.
COUNTERS = {
    "runs": ("billing_runs", "Runs that the run history contains."),
    "failed_runs": ("billing_failed_runs", "Runs of them that failed."),
    "samples": ("billing_samples", "Samples of snapshots that were processed."),
    "written_minutes": ("billing_minute_buckets", "Minute buckets that were written."),
    "replayed_minutes": (
        "billing_replayed_minute_buckets",
        "Minute buckets that were there already with the same figures.",
    ),
    "included_bytes": ("billing_included_bytes", "Bytes paid from included quotas."),
    "returned_included_bytes": (
        "billing_returned_included_bytes",
        "Bytes that corrections gave back to included quotas.",
    ),
    "charged_bytes": ("billing_charged_bytes", "Bytes beyond the included quotas."),
    "returned_charged_bytes": (
        "billing_returned_charged_bytes",
        "Bytes beyond the included quotas that corrections gave back.",
    ),
    "charged_amount": ("billing_charged_amount", "Money charged, in the balances' currency."),
    "returned_amount": (
        "billing_returned_amount",
        "Money that corrections gave back, in the balances' currency.",
    ),
    "corrections": ("billing_corrections", "Corrections that were appended."),
    "resets": ("billing_resets", "Restarts of counters that were found."),
    "gaps": ("billing_gaps_found", "Gaps that were found in the history of sources."),
    "rejected_samples": ("billing_rejected_samples", "Samples that could not be used."),
    "held_deltas": ("billing_held_deltas_found", "Deltas above what a line can carry."),
}


# The same of a source's totals.
SOURCE_COUNTERS = {
    "charged_bytes_total": (
        "billing_source_charged_bytes",
        "Bytes charged, within the included quotas or beyond them.",
    ),
    "amount_total": ("billing_source_amount", "Money charged, in the balances' currency."),
    "new_streams_total": ("billing_source_new_streams", "Streams that were new."),
    "successions_total": (
        "billing_successions",
        "Counters that continue under other names, or after a restart that was none.",
    ),
}


def metrics_text(
    run: RunResult,
    stored: StoredMetrics | None,
    *,
    is_database_up: bool | None,
    version: str,
    present: bytes = b"",
) -> bytes:
    """Return the content of the metrics file after a run.

    `stored` is None where the database was not read, `is_database_up` where it is unknown: what is
    not known is left out. Without `stored`, how runs of other jobs ended is taken from the
    `present` content.
    """
    families = [*_own(version, is_database_up), *_runs(run, stored.totals if stored else ())]
    if stored is None:
        kept = _runs_of_others(present, run.job)
        for family in families:
            family.samples += kept.get(family.name, [])
    else:
        families += [*_totals(stored.totals), *_sources(stored.sources)]
        clean = GaugeMetricFamily(
            "billing_audit_last_clean_timestamp_seconds",
            "When the last audit began that found no violation.",
            labels=["scope"],
        )
        for scope, at in stored.clean_audits:
            clean.add_metric([scope], at.timestamp())
        families.append(clean)
    return generate_latest(_Collected([family for family in families if family.samples]))


class _Collected:
    """Metrics that are there already, as the library wants to be handed them."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


class _LastRun(NamedTuple):
    status: RunStatus
    started_at: datetime
    finished_at: datetime
    success_at: datetime | None


def _own(version: str, is_database_up: bool | None) -> Iterator[Metric]:
    info = GaugeMetricFamily(
        "billing_build_info", "The version that wrote this.", labels=["version"]
    )
    info.add_metric([version], 1)
    yield info
    up = GaugeMetricFamily(
        "billing_database_up", "Whether the database answered at the end of the last run."
    )
    if is_database_up is not None:
        up.add_metric([], is_database_up)
    yield up


def _runs(run: RunResult, totals: Sequence[JobTotals]) -> Iterator[Metric]:
    """How the last run of each job ended: this one as it was, the others as the database says."""
    last = {
        job_totals.job: _LastRun(
            job_totals.last_status,
            job_totals.last_started_at,
            job_totals.last_finished_at,
            job_totals.last_success_at,
        )
        for job_totals in totals
    }
    success_at = last[run.job].success_at if run.job in last else None
    if run.status in {"ok", "partial"}:
        success_at = run.finished_at
    last[run.job] = _LastRun(run.status, run.started_at, run.finished_at, success_at)

    success = _gauge("billing_run_success", "Whether the last run did anything but fail.")
    status = _gauge("billing_run_status", "How the last run ended: 1 for its status.", "status")
    seconds = _gauge("billing_run_duration_seconds", "How long the last run took.")
    end = _gauge("billing_run_end_timestamp_seconds", "When the last run ended.")
    last_success = _gauge(
        "billing_run_last_success_timestamp_seconds",
        "When the last run ended that was ok or partial.",
    )
    for job, ended in sorted(last.items()):
        success.add_metric([job], ended.status != "error")
        for name in get_args(RunStatus):
            status.add_metric([job, name], name == ended.status)
        seconds.add_metric([job], (ended.finished_at - ended.started_at).total_seconds())
        end.add_metric([job], ended.finished_at.timestamp())
        if ended.success_at is not None:
            last_success.add_metric([job], ended.success_at.timestamp())
    yield from (success, status, seconds, end, last_success)


def _runs_of_others(present: bytes, job: str) -> dict[str, list[Sample]]:
    """Return what a metrics file says of the last runs of other jobs, by the metric's name.

    Otherwise a failing job would be gone from the file, and its alert resolved, as soon as another
    job ends. A file that can't be parsed says nothing.
    """
    try:
        return {
            family.name: [
                sample for sample in family.samples if sample.labels.get("command", job) != job
            ]
            for family in text_string_to_metric_families(present.decode())
        }
    except ValueError:
        return {}


def _totals(totals: Sequence[JobTotals]) -> Iterator[Metric]:
    for field, (name, meaning) in COUNTERS.items():
        family = CounterMetricFamily(name, meaning, labels=["command"])
        for job_totals in totals:
            family.add_metric([job_totals.job], float(getattr(job_totals, field)))
        yield family
    for field, meaning in (
        ("violations", "Broken invariants that the last audit of all accounts found."),
        ("notices", "Changes without a ledger row that the last audit of all accounts found."),
    ):
        gauge = GaugeMetricFamily(f"billing_audit_{field}", meaning)
        for job_totals in totals:
            if getattr(job_totals, field) is not None:
                gauge.add_metric([], getattr(job_totals, field))
        yield gauge


def _sources(sources: Sequence[SourceStatus]) -> Iterator[Metric]:
    info = _source_gauge(
        "billing_source_info", "Whom a source speaks for.", "node_id", "env", "contract"
    )
    up = _source_gauge("billing_source_up", "Whether the last attempt succeeded.")
    moments = {
        "watermark": _source_gauge(
            "billing_source_watermark_timestamp_seconds",
            "The stamp of the last snapshot that was applied.",
        ),
        "last_attempted_at": _source_gauge(
            "billing_source_last_attempt_timestamp_seconds", "When the source was last asked."
        ),
        "last_succeeded_at": _source_gauge(
            "billing_source_last_success_timestamp_seconds",
            "When the source was last asked with success.",
        ),
    }
    lag = _source_gauge(
        "billing_source_lag_seconds", "How far the watermark was behind when this was written."
    )
    gaps = _source_gauge("billing_source_gaps", "Gaps that are not resolved, by kind.", "kind")
    held = _source_gauge("billing_source_held_deltas", "Deltas that wait for a decision.")
    held_bytes = _source_gauge("billing_source_held_bytes", "Bytes that wait for a decision.")
    unresolved = _source_gauge("billing_source_unresolved_streams", "Streams that have no account.")
    uncharged = _source_gauge(
        "billing_source_uncharged_accounts", "Accounts that can't be charged: their usage waits."
    )
    crowded = _source_gauge(
        "billing_source_account_streams_max",
        "Streams of the account that has the most on the node.",
    )
    busy = _source_gauge(
        "billing_source_busy_seconds",
        "For how long runs find the source locked by another session.",
        "holder",
    )
    totals = {
        field: CounterMetricFamily(name, meaning, labels=["source"])
        for field, (name, meaning) in SOURCE_COUNTERS.items()
    }
    for source in sources:
        name = source.source_id
        if source.node_id:
            info.add_metric([name, source.node_id, source.env, source.contract], 1)
        if source.last_attempted_at is not None:
            up.add_metric([name], not source.last_error)
        for field, family in moments.items():
            moment: datetime | None = getattr(source, field)
            if moment is not None:
                family.add_metric([name], moment.timestamp())
        if source.lag_seconds is not None:
            lag.add_metric([name], source.lag_seconds)
        for kind in get_args(GapKind):
            gaps.add_metric([name, kind], source.gaps.get(kind, 0))
        held.add_metric([name], source.held_deltas)
        held_bytes.add_metric([name], source.held_bytes)
        unresolved.add_metric([name], source.unresolved_streams)
        uncharged.add_metric([name], source.uncharged_accounts)
        crowded.add_metric([name], source.most_account_streams)
        if source.busy_seconds:
            busy.add_metric([name, source.lock_holder], source.busy_seconds)
        for field, counter in totals.items():
            counter.add_metric([name], float(getattr(source, field)))
    yield from (info, up, *moments.values(), lag, gaps, held, held_bytes, unresolved, uncharged)
    yield from (crowded, busy, *totals.values())


def _gauge(name: str, meaning: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, meaning, labels=["command", *labels])


def _source_gauge(name: str, meaning: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, meaning, labels=["source", *labels])
