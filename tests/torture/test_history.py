"""The history checker: a process of its own that knows nothing of billing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.torture import history

if TYPE_CHECKING:
    from pathlib import Path

    from tests.torture.arena import Arena


def transaction(
    name: str, span: tuple[int, int], reads: dict[str, str], writes: dict[str, str]
) -> dict[str, Any]:
    """Return a line of a history."""
    return {"name": name, "start": span[0], "end": span[1], "reads": reads, "writes": writes}


SERIAL = [
    transaction("run", (0, 10), {"a": "0", "w": "0"}, {"a": "1", "w": "1"}),
    transaction("top-up", (5, 12), {"a": "1"}, {"a": "2"}),
    transaction("look", (6, 20), {"a": "1", "w": "1"}, {}),
]


@pytest.mark.parametrize(
    ("added", "anomaly"),
    [
        pytest.param([], None, id="a serial order exists"),
        pytest.param(
            [transaction("stale", (7, 13), {"a": "1"}, {"a": "9"})], "lost update", id="lost update"
        ),
        pytest.param(
            [transaction("look", (7, 13), {"a": "1", "w": "0"}, {})],
            "no serial order",
            id="half of a commit is seen",
        ),
        pytest.param(
            [transaction("look", (30, 40), {"a": "1"}, {})],
            "no serial order",
            id="what was replaced long ago is read",
        ),
        pytest.param(
            [transaction("look", (7, 13), {"a": "7"}, {})],
            "nobody wrote",
            id="a value from nowhere",
        ),
    ],
)
def test_a_history_is_judged_by_whether_a_serial_order_explains_it(
    tmp_path: Path, added: list[dict[str, Any]], anomaly: str | None
) -> None:
    """What contradicts every serial order is named."""
    path = tmp_path / "history.jsonl"
    path.write_text("".join(json.dumps(transaction) + "\n" for transaction in [*SERIAL, *added]))
    anomalies = history.judge(path)["anomalies"]
    if anomaly is None:
        assert anomalies == []
    else:
        assert any(anomaly in text for text in anomalies)


def test_a_lost_update_among_real_runs_is_found(arena: Arena, tmp_path: Path) -> None:
    """Without a stale write nothing is found, with one it is."""
    path = tmp_path / "history.jsonl"
    history.write_history(arena, 3, 12, path)
    assert history.judge(path)["anomalies"] == []
    history.write_history(arena, 3, 12, path, stale=True)
    (anomaly,) = history.judge(path)["anomalies"]
    assert "lost update" in anomaly
    assert "stale write" in anomaly
