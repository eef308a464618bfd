"""docs/reference/json.md lists the keys of real results. WRITE_DOCS=1 writes it anew."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from billing_cli.core.times import format_rfc3339
from tests.support.story import MINUTE, START
from tools.json_reference import json_page

if TYPE_CHECKING:
    from tests.support.story import Story

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "json.md"


def test_the_json_reference_lists_the_keys_of_real_results(story: Story, tmp_path: Path) -> None:
    """A key that is new, gone or of another type is written down first."""
    text = json_page(results(story, tmp_path))
    if os.environ.get("WRITE_DOCS"):
        PAGE.write_text(text, encoding="utf-8")
    assert PAGE.read_text("utf-8") == text, "WRITE_DOCS=1 make test ARGS=tests/integration/docs"


def results(story: Story, tmp_path: Path) -> dict[str, list[Any]]:
    """Return the results of each command that reads or writes facts, with something in them."""
    user, stranger = story.add_user(), story.fleet.new_uuid()
    node = story.add_node("jp-1")
    streams = [node.add_stream(uuid, "xhttp") for uuid in (user.uuid, stranger)]
    story.minute()
    story.minute((streams[0], 10, 100), (streams[1], 1, 2))
    span = ("--since", format_rfc3339(START), "--until", format_rfc3339(START + 5 * MINUTE))
    lines = {
        "migrate": ("migrate", "--check", "--json"),
        "check": ("check", "--json"),
        "collect, catch-up, reconcile": ("catch-up", *span, "--json"),
        "status": ("status", "--json"),
        "usage": ("usage", *span, "--top", "1", "--json"),
        "explain": ("explain", user.uuid, *span, "--json"),
        "audit": ("audit", "--json"),
        "streams": ("streams", "--json"),
        "held list": ("held", "list", "--json"),
        "simulate": ("simulate", "--price", "1", *span, "--json"),
        "rerate": ("rerate", *span, "--reason", "a test", "--pricing-rule-version", "v2", "--json"),
        "repair balances": ("repair", "balances", "--reason", "a test", "--json"),
        "config show": ("config", "show", "--json"),
        "init": ("init", "--directory", str(tmp_path), "--source", "a=https://127.0.0.1:9",
                 "--price", "1", "--json"),
    }  # fmt: skip
    found = {}
    for name, line in lines.items():
        if name == "rerate":
            story.price *= 2
        done = story.billing(*line)
        assert done.stdout, (line, done.stderr)
        found[name] = [json.loads(done.stdout)]
        story.version = "v2" if name == "rerate" else story.version
    return found
