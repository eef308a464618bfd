"""docs/errors.md lists what a command line can cause; each is one line, and one JSON object."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import billing_cli
from billing_cli.errors import EXIT_CODES
from tests.cli.command import billing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.cli.command import Finished

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
ROW = re.compile(r"^\| `([^`]*billing [^|]*)` \| (\d+) \| (.+) \|$", re.MULTILINE)
ERRORS = ROW.findall(PAGE.read_text("utf-8"))
SCHEMA = json.loads(Path(billing_cli.__file__).with_name("result.schema.json").read_text("utf-8"))


@pytest.mark.parametrize(("command", "code", "message"), ERRORS)
def test_each_error_of_the_page_is_one_line_and_one_object(
    job_url: str, command: str, code: str, message: str
) -> None:
    """With the exit code of the page; --json says the same on stdout."""
    plain = run(job_url, command)
    assert (plain.code, plain.stdout) == (int(code), ""), plain
    *_, line = plain.stderr.splitlines()
    assert line.startswith("Error: ")
    assert message in line
    if "--output" in command:
        return
    told = run(job_url, f"{command} --json")
    assert told.code == int(code)
    assert told.stdout.count("\n") == 1
    assert_fits_the_schema(told.result)
    assert told.result["status"] == "error"
    assert EXIT_CODES[told.result["error"]["code"]] == int(code)


@pytest.mark.parametrize("asked", [("--output", "json"), ("--output=json",), ("--json",)])
def test_json_is_asked_for_in_any_spelling(job_url: str, asked: tuple[str, ...]) -> None:
    """A failure is an object for whoever asked for objects."""
    told = run(job_url, shlex.join(["billing", "status", "--nonsense", *asked]))
    assert (told.code, told.result["job"]) == (2, "status")
    assert told.result["error"]["code"] == "usage"


@pytest.mark.parametrize(
    "command", ["status", "streams", "held list", "audit", "usage", "check", "config show"]
)
def test_results_fit_the_schema(job_url: str, command: str) -> None:
    """Those of commands that look, in an empty database."""
    assert_fits_the_schema(run(job_url, f"billing {command} --output json").result)


def test_the_schema_knows_every_code() -> None:
    """No more and no fewer than the table in the code."""
    codes = SCHEMA["properties"]["error"]["properties"]["code"]["enum"]
    assert codes == sorted(EXIT_CODES)


def run(database_url: str, line: str) -> Finished:
    """Run a line of the page: variables, then the command."""
    words = shlex.split(line)
    start = words.index("billing")
    environment = {
        "DATABASE_URL": database_url,
        "EXPORTER_SOURCES_JSON": '[{"source_id": "jp-1", "base_url": "http://127.0.0.1:1"}]',
        "PRICE_PER_BYTE": "1e-9",
    }
    given = dict(word.split("=", 1) for word in words[:start])
    return billing(*words[start + 1 :], environment=environment | given)


def assert_fits_the_schema(found: Mapping[str, Any]) -> None:
    """Check what the schema says, key by key."""
    keys = SCHEMA["properties"]
    assert set(SCHEMA["required"]) <= found.keys()
    assert isinstance(found["job"], str)
    assert found["status"] in keys["status"]["enum"]
    error = found["error"]
    assert (error is not None) == (found["status"] in {"error", "busy"})
    if error is not None:
        assert error.keys() == keys["error"]["properties"].keys()
        assert error["code"] in keys["error"]["properties"]["code"]["enum"]
        assert re.match(keys["error"]["properties"]["message"]["pattern"], error["message"])
