"""docs/reference/json.md lists the keys of real results. WRITE_DOCS=1 writes it anew."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from billing_cli.core.times import format_rfc3339
from billing_cli.database.connecting import Database
from billing_cli.features.seal.job import seal
from billing_cli.signatures import generate_key
from tests.support.sealing import DAY, Sealing
from tests.support.story import MINUTE, START
from tools.json_reference import json_page

if TYPE_CHECKING:
    from tests.support.story import Story

JUMP = 1_000_000
PAGE = Path(__file__).parents[3] / "docs" / "reference" / "json.md"


def test_the_json_reference_lists_the_keys_of_real_results(story: Story, tmp_path: Path) -> None:
    """A key that is new, gone or of another type is written down first."""
    text = json_page(results(story, tmp_path))
    if os.environ.get("WRITE_DOCS"):
        PAGE.write_text(text, encoding="utf-8")
    assert PAGE.read_text("utf-8") == text, "WRITE_DOCS=1 make test ARGS=tests/integration/docs"


def results(story: Story, directory: Path) -> dict[str, list[Any]]:
    """Return the results of each command that prints one object, with something in them."""
    user, stranger = play(story)
    held = [str(row[0]) for row in story.rows("SELECT held_id FROM billing.held_deltas ORDER BY 1")]
    sealing = Sealing(story, directory, story.database_url)
    for later in (0 * DAY, DAY):
        sealing.seal(later)
    month, key, public = f"{START:%Y-%m}", str(directory / "seal.key"), str(sealing.key_file)
    statement, archive = str(directory / "statement.json"), str(directory / month)
    span = ("--since", format_rfc3339(START), "--until", format_rfc3339(START + 9 * MINUTE))
    why = ("--reason", "a test")
    lines: dict[str, list[tuple[str, ...]]] = {
        "migrate": [("migrate", "--check")],
        "check": [("check",)],
        "collect, catch-up, reconcile": [("catch-up", *span), ("reconcile", *span)],
        "status": [("status",)],
        "sources list": [("sources", "list")],
        "sources move": [("sources", "move", "jp-1", "prod:jp-2", "--same-counters", "--dry-run")],
        "sources accept": [("sources", "accept", "jp-1", *why)],
        "usage": [("usage", *span, "--top", "1")],
        "explain": [("explain", user, *span), ("explain", stranger)],
        "statement": [("statement", user, "--month", month)],
        "statement --out": [("statement", user, "--month", month, "--out", statement)],
        "audit": [("audit",)],
        "streams": [("streams",)],
        "held list": [("held", "list")],
        "held release, held reject": [("held", "release", held[0], *why),
                                      ("held", "reject", held[1], *why)],
        "simulate": [("simulate", "--price", "1", *span)],
        "rerate": [("rerate", *span, *why, "--pricing-rule-version", "v2")],
        "reverse": [("reverse", "--source", "jp-1", *span, *why)],
        "repair balances": [("repair", "balances", *why)],
        "suspend": [("suspend", "--dry-run")],
        "seal keygen": [("seal", "keygen", "--out", key, "--name", "example.com/billing")],
        "seal": [("seal", "--key-ref", f"file:{key}")],
        "archive": [("archive", "--month", month, "--to", str(directory))],
        "verify": [("verify", "--checkpoint", str(sealing.file), "--public-key", public),
                   ("verify", "--statement", statement, "--public-key", public),
                   ("verify", "--archive", archive, "--public-key", public)],
        "prune": [("prune", "--keep", "1mo", "--dry-run", "--without-archive")],
        "config show": [("config", "show")],
        "init": [("init", "--directory", str(directory), "--source", "a=https://127.0.0.1:9",
                  "--price", "1")],
    }  # fmt: skip
    return {
        name: [one for line in some for one in printed(story, line)] for name, some in lines.items()
    }


def play(story: Story) -> tuple[str, str]:
    """Let two users and a stranger use a node; return the uuids of a user and of the stranger."""
    user, other, stranger = story.add_user(), story.add_user(), story.fleet.new_uuid()
    node = story.add_node("jp-1")
    streams = [node.add_stream(uuid, "xhttp") for uuid in (user.uuid, other.uuid, stranger)]
    story.minute()
    for _ in range(3):
        story.minute((streams[0], 10, 100), (streams[1], 5, 50), (streams[2], 1, 2))
    # Far above the story's rate: held, each account's minute by itself.
    story.minute((streams[0], JUMP, 100), (streams[1], JUMP, 50))
    story.minute((streams[0], 10, 100))
    story.collect()
    return user.uuid, stranger


def printed(story: Story, line: tuple[str, ...]) -> list[Any]:
    """Run a command as the owner of the tables; return the object that it printed, if any."""
    if line[0] == "rerate":
        story.price *= 2
    if line[0] == "prune":
        seal_today(story)
    done = story.billing(*line, "--json", DATABASE_URL=story.database_url)
    assert done.exit_code in {0, 3}, (line, done.stdout, done.stderr)
    if line[0] == "rerate":
        story.version = "v2"
    return [json.loads(done.stdout)] if done.stdout else []


def seal_today(story: Story) -> None:
    """Seal the day on which the commands booked their charges, which `prune` waits for."""
    tomorrow = datetime.now(UTC) + DAY
    context = replace(
        story.context(), clock=lambda: tomorrow, database=Database(story.database_url)
    )
    seal(context, generate_key("example.com/billing"))
