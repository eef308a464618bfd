"""The label of the currency stands wherever a person reads amounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.core.times import format_rfc3339
from tests.support.story import MINUTE, START

if TYPE_CHECKING:
    from tests.support.story import Story


def test_every_text_with_amounts_names_their_currency(story: Story) -> None:
    """Nothing is converted: it is the configured label."""
    user = story.add_user()
    stream = story.add_node("jp-1").add_stream(user.uuid, "xhttp")
    story.minute()
    story.minute((stream, 10, 100))
    span = ("--since", format_rfc3339(START), "--until", format_rfc3339(START + 5 * MINUTE))
    why = ("--reason", "a test", "--dry-run")
    silent = []
    for line in (
        ("catch-up", *span),
        ("status",),
        ("usage", *span),
        ("explain", user.uuid, *span),
        ("audit", "--account", user.uuid),
        ("statement", user.uuid, "--month", f"{START:%Y-%m}"),
        ("simulate", "--price", "1", *span),
        ("rerate", *span, *why, "--pricing-rule-version", "v2"),
        ("reverse", "--source", "jp-1", *span, *why),
        ("repair", "balances", *why),
    ):
        done = story.billing(*line, BILLING_CURRENCY="XTS")
        if "XTS" not in done.stdout:
            silent.append((line, done.stdout, done.stderr))
    assert silent == []
