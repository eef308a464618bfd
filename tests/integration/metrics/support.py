"""Reading a metrics file as Prometheus does, and one that holds every metric there is."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from billing_cli.cli.metrics import metrics_text
from billing_cli.core.result import RunResult
from billing_cli.core.source_status import SourceStatus
from billing_cli.core.totals import JobTotals, StoredMetrics
from tests.support.story import START

Samples = dict[tuple[str, ...], float]

DOCS = Path(__file__).parents[3] / "docs"
ALERTS = DOCS / "prometheus" / "alerts.yml"
ALERT_TESTS = tuple(Path(__file__).parent.glob("alerts*_test.yml"))
DASHBOARD = DOCS / "grafana" / "billing.json"
PAGE = DOCS / "reference" / "metrics.md"
RUNBOOK = DOCS / "operations.md"

RUN = RunResult("collect", "", "ok", START, START + timedelta(seconds=2))
TOTALS = JobTotals(
    "audit", "ok", START, START, START, charged_amount=Decimal("0.5"), violations=0, notices=1
)
SOURCE = SourceStatus(
    "jp-1",
    node_id="jp-1.svc.plus",
    env="prod",
    contract="window",
    watermark=START,
    lag_seconds=90.0,
    last_attempted_at=START,
    last_succeeded_at=START,
    gaps={"late": 2},
    busy_seconds=660.0,
    lock_holder="role billing (pid 4711)",
)


def complete_text() -> str:
    """Return a file that holds every metric at least once."""
    stored = StoredMetrics((TOTALS,), (SOURCE,), (("new", START), ("full", START)))
    return metrics_text(RUN, stored, is_database_up=True, version="1.0").decode()


def samples_of(text: str) -> Samples:
    """Return each value by its metric's name and its labels' values, in the labels' order."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def read(path: Path) -> Samples:
    """Return what a metrics file holds."""
    return samples_of(path.read_text(encoding="utf-8"))
