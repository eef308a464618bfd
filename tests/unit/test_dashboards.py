"""The dashboards fit the schema that Grafana publishes, in the form of its own Python types.

No Grafana is to be had from the registries that a build may use, so none loads them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

DASHBOARDS = sorted((Path(__file__).parents[2] / "docs" / "grafana").glob("*.json"))


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_grafanas_own_types_read_all_of_a_dashboard(path: Path) -> None:
    """What they know is written again as it was; a key that they don't know would be gone."""
    dashboard = json.loads(path.read_text("utf-8"))
    assert lost(dashboard, as_grafana_knows_it(dashboard)) == []


def as_grafana_knows_it(dashboard: dict[str, Any]) -> Any:
    """Return a dashboard as it is after Grafana's types have read and written it."""
    copy = json.loads(json.dumps(dashboard))
    return json.loads(JSONEncoder().encode(Dashboard.from_json(copy)))


def lost(before: Any, after: Any, place: str = "dashboard") -> list[str]:
    """Return where something is gone or changed; keys may be added."""
    if isinstance(before, dict) and isinstance(after, dict):
        pairs = [(f"{place}.{key}", one, after.get(key)) for key, one in before.items()]
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = [(f"{place}[{n}]", *both) for n, both in enumerate(zip(before, after, strict=True))]
    else:
        return [] if before == after else [place]
    return [found for where, one, other in pairs for found in lost(one, other, where)]
