"""The examples of the help pages run, on a database in which what they name exists."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

from billing_cli.simulator.accounts import save_users
from tests.cli.test_help import LEAVES, examples
from tests.support.forks import run_forked

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.story import Story

ACCOUNT = "11111111-1111-1111-1111-111111111111"
DONE, PARTIAL = 0, 3

# What examples are about that this database does not have, and what is said of it.
MISSING = {
    "archive": "nothing is sealed yet",
    "held release": "there is no held delta 17",
    "held reject": "there is no held delta 18, 19",
    "verify": "checkpoints: No such file or directory",
}


def test_an_example_of_every_help_page_runs(story: Story, tmp_path: Path) -> None:
    """To its end; where what it names is missing, that is what is said."""
    user = story.fleet.add_user(ACCOUNT)
    save_users(story.connection, [user])
    stream = story.add_node("jp-1").add_stream(user.uuid, "xhttp")
    story.minute()
    story.minute((stream, 10, 100))
    story.collect()
    failed = {
        name: said
        for name in LEAVES
        if (said := attempts(story, tmp_path, name)) and MISSING.get(name, "?") not in said[0]
    }
    assert failed == {}


def attempts(story: Story, directory: Path, name: str) -> list[str]:
    """Run a page's examples until one succeeds; return nothing then, else what each said."""
    sources = json.loads(story.environment()["EXPORTER_SOURCES_JSON"])
    sources.append({"source_id": "tokyo-1", "base_url": "https://127.0.0.1:9"})
    # Of its own: pages make files of the same names.
    directory = directory / name.replace(" ", "-")
    directory.mkdir()
    said = []
    for example in examples(name):
        done = run_forked(
            tuple(shlex.split(in_directory(example, directory))),
            story.environment()
            | {"DATABASE_URL": story.database_url, "EXPORTER_SOURCES_JSON": json.dumps(sources)},
            cwd=directory,
        )
        if done.code in {DONE, PARTIAL}:
            return []
        said.append(f"billing {example} ({done.code}): {done.stderr.strip()[-200:]}")
    return said


def in_directory(example: str, directory: Path) -> str:
    """Return an example that writes and reads files in a directory."""
    if example.startswith("init") and "--directory" not in example:
        # Or else it would configure this machine.
        example += f" --directory {directory}/configured"
    return example.replace("/etc/billing/", f"{directory}/").replace("/srv/", f"{directory}/")
