"""An account's month: two sealed days, one that is not, a new price, a top-up without a row."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from billing_cli.cli.statement_html import statement_html
from billing_cli.features.rerate.job import Order, rerate
from billing_cli.features.reverse.job import Order as Reversal
from billing_cli.features.reverse.job import reverse
from billing_cli.features.statement.job import statement
from tests.support.sealing import DAY, Sealing
from tests.support.story import MINUTE, START, told_story

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.postgres import Databases
    from tests.support.story import Story

MONTH = START.date().replace(day=1)
REVERSAL_REASON = "the node was compromised"
HOSTILE_TAG = "</script><script>"


class Month(NamedTuple):
    """The story, the account, its statement, and the files that a customer gets."""

    story: Story
    account: str
    statement: dict[str, Any]
    json_file: Path
    html_file: Path
    key_file: Path


@pytest.fixture(scope="module")
def month(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Month]:
    """Bill three accounts for some minutes on three days."""
    directory = tmp_path_factory.mktemp("statement")
    with (
        databases.database(migrated=True) as url,
        told_story(url, databases.job_url(url)) as story,
    ):
        sealing = Sealing(story, directory, url)
        story.quota = 50
        node = story.add_node("jp-1")
        users = [story.add_user() for _ in range(3)]
        streams = [node.add_stream(one.uuid, f"tag-{n}") for n, one in enumerate(users)]
        streams.append(node.add_stream(users[0].uuid, HOSTILE_TAG))
        story.minute()
        story.collect()
        for later in (0 * DAY, DAY, 2 * DAY):
            for _ in range(3):
                story.minute(*((stream, 10, 20) for stream in streams))
                story.collect()
            if later == DAY:
                story.top_up(users[0], Decimal("2.5"))
                story.price *= 2
                order = Order(START, START + 7 * MINUTE, "v2", "agreed in ticket 7")
                assert rerate(replace(story.context(), job="rerate"), order).corrections
                back = Reversal(
                    "jp-1", START + 4 * MINUTE, START + 6 * MINUTE, None, REVERSAL_REASON
                )
                assert reverse(replace(story.context(), job="reverse"), back).corrections
            sealing.seal(later)
        context = replace(story.context(), clock=lambda: START + 3 * DAY, currency="EUR")
        made = statement(context, users[0].uuid, MONTH)
        json_file, html_file = directory / "statement.json", directory / "statement.html"
        json_file.write_text(json.dumps(made, ensure_ascii=False, indent=1))
        html_file.write_text(statement_html(made))
        yield Month(story, users[0].uuid, made, json_file, html_file, sealing.key_file)
