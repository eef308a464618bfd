"""The compose file: what it names is there, and its settings and commands are understood.

No container is started: none can be where the tests run.
"""

from __future__ import annotations

import re
import subprocess
import textwrap
from collections import Counter
from pathlib import Path

from click.testing import CliRunner

from billing_cli.cli.root import cli
from billing_cli.config.settings import load_settings
from billing_cli.simulator.__main__ import cli as simulator

DIRECTORY = Path(__file__).parents[2] / "containers"
COMPOSE = (DIRECTORY / "compose.yaml").read_text("utf-8")


def test_what_the_compose_file_mounts_is_there() -> None:
    """And so is what the image is made of."""
    mounted = re.findall(r"- (\.{1,2}/\S+?):/", COMPOSE)
    assert len(mounted) == 5
    assert [path for path in mounted if not (DIRECTORY / path).exists()] == []
    assert (DIRECTORY.parent / "containers" / "Containerfile").exists()


def test_the_settings_of_the_compose_file_are_right() -> None:
    """Two exporters, a price and a database."""
    environ = dict(re.findall(r'^    ([A-Z_]+): "?([^">\n]+)"?$', COMPOSE, re.MULTILINE))
    sources = re.search(r"EXPORTER_SOURCES_JSON: >-\n(.*?)\n\n", COMPOSE, re.DOTALL)
    assert sources is not None
    environ["EXPORTER_SOURCES_JSON"] = sources[1]
    settings = load_settings(None, environ)
    assert [source.source_id for source in settings.sources] == ["jp-1", "us-1"]
    assert settings.price_per_byte > 0
    assert settings.database_url is not None


def test_the_commands_of_the_compose_file_are_understood() -> None:
    """With their options."""
    for line in re.findall(r"billing ((?:migrate|collect|reconcile|audit)[^;&\n]*)", COMPOSE):
        assert CliRunner().invoke(cli, [*line.split(), "--help"]).exit_code == 0, line
    lines = re.findall(r"billing_cli\.simulator,? (exporter[^\]]*|accounts)", COMPOSE)
    assert len(lines) == 3
    for line in lines:
        words = line.replace(",", "").split()
        assert CliRunner().invoke(simulator, [*words, "--help"]).exit_code == 0, line


def test_the_loop_of_the_compose_file_runs_what_the_timers_run() -> None:
    """`collect` each minute, `reconcile` and `audit` each hour, and `audit --full` once a week."""
    script = textwrap.dedent(COMPOSE.partition("      - |\n")[2].partition("\n\n")[0])
    week = script.replace("$$", "$").replace("while true", "while [ $minute -lt 10080 ]")
    stand_ins = 'billing() { echo "$@"; }\npython() { :; }\nsleep() { :; }\n'
    done = subprocess.run(  # noqa: S603 - the script of the compose file
        ["/bin/sh", "-c", stand_ins + week],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Counter(done.stdout.splitlines()) == {
        "migrate --create-shared-tables": 1,
        "collect": 7 * 24 * 60,
        "reconcile": 7 * 24,
        "audit": 7 * 24,
        "audit --full": 1,
    }
