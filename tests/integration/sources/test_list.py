"""`billing sources list`: every source, the configured and the former ones."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

from tests.support.story import MINUTE

if TYPE_CHECKING:
    from tests.support.story import Story


def test_each_source_is_listed_with_state_node_watermark_and_lag(story: Story) -> None:
    """Configured ones in their order, then what was collected once and is configured no more."""
    for name in ("jp-1", "us-1", "de-1"):
        story.add_node(name)
    story.minute()
    story.collect()
    ((watermark,),) = story.rows("SELECT max(watermark) FROM billing.sources")
    sources = json.loads(story.environment()["EXPORTER_SOURCES_JSON"])
    by_id = {source["source_id"]: source for source in sources}
    new = {"source_id": "new-1", "base_url": "https://127.0.0.1:9", "region": "asia"}
    asked = json.dumps([new, by_id["us-1"] | {"enabled": False}, by_id["jp-1"]])

    done = story.billing("sources", "list", "--json", EXPORTER_SOURCES_JSON=asked)

    assert (done.exit_code, done.json["status"], done.json["error"]) == (0, "ok", None)
    found = [(one["source_id"], one["state"], one["node_id"]) for one in done.json["sources"]]
    assert found == [
        ("new-1", "new", ""),
        ("us-1", "disabled", "us-1.svc.plus"),
        ("jp-1", "behind", "jp-1.svc.plus"),
        ("de-1", "removed", "de-1.svc.plus"),
    ]
    assert done.json["sources"][0]["region"] == "asia"
    assert done.json["sources"][2]["lag_seconds"] > MINUTE.total_seconds()

    table = story.billing("sources", "list", "--output", "csv", EXPORTER_SOURCES_JSON=asked)
    rows = list(csv.DictReader(table.stdout.splitlines()))
    assert [row["node"] for row in rows][1:3] == ["prod:us-1.svc.plus", "prod:jp-1.svc.plus"]
    assert rows[2]["watermark"].startswith(f"{watermark:%Y-%m-%dT%H:%M:%S}")


def test_a_source_whose_last_attempt_failed_is_failed(story: Story) -> None:
    """With the reason."""
    story.add_node("jp-1")
    story.minute()
    story.collect()
    story.connection.execute(
        "UPDATE billing_source_sync_state SET last_error = 'timeout' WHERE source_id = 'jp-1'"
    )

    shown = story.billing("sources", "list").stdout.splitlines()

    assert shown[1].split()[:2] == ["jp-1", "failed"]
    assert shown[1].endswith("timeout")
