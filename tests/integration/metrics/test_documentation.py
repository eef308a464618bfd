"""The metrics reference, the alert rules and the dashboard are about metrics that there are."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.metrics.support import (
    ALERT_TESTS,
    ALERTS,
    DASHBOARD,
    PAGE,
    RUNBOOK,
    complete_text,
    samples_of,
)

if TYPE_CHECKING:
    from pathlib import Path

DASHBOARDS = sorted(DASHBOARD.parent.glob("*.json"))
METRIC = re.compile(r"\bbilling_[a-z_]+\b(?!\.|/)")


def known() -> set[str]:
    """Return the name of every metric."""
    return {name for name, *_ in samples_of(complete_text())}


def test_the_page_describes_each_metric_with_its_type_and_labels() -> None:
    """And no other."""
    rows = re.findall(r"^\| `(billing_\w+)` \| (\w+) \| (.*?) ?\| .+ \|$", page(), re.MULTILINE)
    described = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert len(described) == len(rows)
    assert described == {
        sample.name: (family.type, set(sample.labels))
        for family in text_string_to_metric_families(complete_text())
        for sample in family.samples
    }


@pytest.mark.parametrize(
    "path", [PAGE, ALERTS, *ALERT_TESTS, DASHBOARD], ids=lambda path: path.name
)
def test_every_metric_that_is_mentioned_exists(path: Path) -> None:
    """A rule over a metric that nobody writes would never fire."""
    mentioned = set(METRIC.findall(path.read_text(encoding="utf-8")))
    assert mentioned
    assert mentioned - {"billing_cli"} <= known()


def test_every_alert_is_explained_and_tested() -> None:
    """Its annotation leads to the paragraph that says what to do."""
    rules = ALERTS.read_text(encoding="utf-8")
    names = re.findall(r"alert: (\w+)", rules)
    assert names
    assert re.findall(r"^### (Billing\w+)$", RUNBOOK.read_text("utf-8"), re.MULTILINE) == names
    anchors = re.findall(r"runbook: docs/operations\.md#(\w+)", rules)
    assert anchors == [name.lower() for name in names]
    fired = re.findall(
        r"alertname: (\w+)\n\s+eval_time: \w+\n\s+exp_alerts:\n",
        "".join(path.read_text("utf-8") for path in ALERT_TESTS),
    )
    assert set(fired) == set(names)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_a_dashboard_has_places_and_names_of_its_own_for_all_its_panels(path: Path) -> None:
    """No two of them overlap, and each says what it shows."""
    dashboard = json.loads(path.read_text(encoding="utf-8"))
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        assert panel["title"]
        assert panel["type"] == "row" or panel["description"]
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)


def page() -> str:
    """Return the page."""
    return PAGE.read_text(encoding="utf-8")
