"""The metrics, the alert rules and the dashboard, as Prometheus itself sees them."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.metrics.support import ALERT_TESTS, ALERTS, DASHBOARD
from tests.support.prometheus import scraping

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.story import Story


@pytest.mark.parametrize("arguments", [("check", "rules", ALERTS), ("test", "rules", *ALERT_TESTS)])
def test_the_alert_rules_hold(arguments: tuple[Any, ...]) -> None:
    """They are well-formed; each fires when it should, and not before."""
    done = promtool(*map(str, arguments))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_names_follow_the_conventions(story: Story, tmp_path: Path) -> None:
    """In a file that a real run has left."""
    path = tmp_path / "billing.prom"
    written(story, path)
    done = promtool("check", "metrics", stdin=path.read_text(encoding="utf-8"))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_every_query_of_the_dashboard_gives_results(story: Story, tmp_path: Path) -> None:
    """While a real Prometheus scrapes what real runs leave; counters are seen to grow."""
    path = tmp_path / "billing.prom"
    written(story, path)
    with scraping(path, ALERTS, tmp_path) as prometheus:
        (runs,) = prometheus.result_of('billing_runs_total{command="collect"}')
        assert (runs["metric"]["job"], runs["value"][1]) == ("node", "2")
        written(story, path)
        for query in dashboard_queries():
            prometheus.result_of(query)
        for counter in ("runs", "charged_bytes", "charged_amount", "minute_buckets"):
            grown = f'increase(billing_{counter}_total{{command="collect"}}[1h]) > 0'
            prometheus.result_of(grown)
        rules = prometheus.rules()
    assert {rule["health"] for rule in rules} == {"ok"}


def written(story: Story, path: Path) -> None:
    """Bill another minute, and let each job that the dashboard is about leave the file anew."""
    if "jp-1" not in story.fleet.nodes:
        story.add_node("jp-1").add_stream(story.add_user().uuid, "xhttp")
        story.minute()
    (stream,) = story.fleet.nodes["jp-1"].streams
    story.minute((stream, 100, 50))
    story.collect()
    for job in ("audit", "reconcile", "collect"):
        done = story.billing(job, BILLING_METRICS_FILE=str(path))
        assert done.exit_code == 0, done.stderr


def dashboard_queries() -> list[str]:
    """Return every query, with all sources chosen."""
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    targets = [target for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert len(targets) > 20
    return [target["expr"].replace("$source", ".*") for target in targets]


def promtool(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run promtool, or skip the test where it is not installed."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed")
    return subprocess.run(  # noqa: S603
        [program, *arguments], input=stdin, capture_output=True, text=True, check=False
    )
