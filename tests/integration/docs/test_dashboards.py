"""The dashboard on PostgreSQL asks what the tables can answer. No Grafana is started for it."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from billing_cli.core.times import format_rfc3339
from tests.support.story import MINUTE, START

if TYPE_CHECKING:
    from tests.support.story import Story

DASHBOARD = Path(__file__).parents[3] / "docs" / "grafana" / "billing-postgresql.json"
TIME_FILTER = re.compile(r"\$__timeFilter\((\w+)\)")


def test_every_query_of_the_dashboard_answers(story: Story) -> None:
    """As Grafana sends it; a time series begins with its time, and a stat has one value."""
    user = story.add_user()
    stream = story.add_node("jp-1").add_stream(user.uuid, "xhttp")
    story.minute()
    story.minute((stream, 10, 100))
    story.collect()
    shown: dict[str, list[Any]] = {}
    for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"]:
        for target in panel.get("targets", ()):
            cursor = story.connection.execute(as_sent(target["rawSql"], story))
            rows, names = cursor.fetchall(), [column.name for column in cursor.description or ()]
            assert (names[0] == "time") == (target["format"] == "time_series"), panel["title"]
            assert panel["type"] != "stat" or len(rows) == len(names) == 1, panel["title"]
            shown[panel["title"]] = rows
    assert shown["Revenue"] == [(Decimal("0.110"),)]
    assert shown["Traffic"] == [(110,)]
    assert [row[0] for row in shown["Largest accounts"]] == [user.uuid]
    assert [row[:2] for row in shown["Nodes"]] == [("prod:jp-1.svc.plus", "xhttp")]


def as_sent(query: str, story: Story) -> bytes:
    """Return a query with the time range in place of Grafana's macro."""
    since, until = format_rfc3339(START), format_rfc3339(story.now + MINUTE)
    return TIME_FILTER.sub(rf"\1 BETWEEN '{since}' AND '{until}'", query).encode()
