"""Why a source fails, as a code for programs."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any, get_args

import pytest

from billing_cli.exporter.api import ErrorCode, ExporterError
from tests.unit.exporter.answers import encoded, fetched, minutes, page
from tests.unit.exporter.hostility import script_that
from tests.unit.exporter.servers import answering, http, serving

DOCUMENT = Path(__file__).parents[3] / "docs" / "exporter.md"


def test_the_table_in_the_docs_lists_every_code() -> None:
    """Codes are stable; a new one is documented with what to do."""
    text = DOCUMENT.read_text(encoding="utf-8").partition("## Why a source fails")[2]
    listed = re.findall(r"^\| `(\w+)` \|", text.partition("\n## ")[0], re.MULTILINE)
    assert listed
    assert sorted(listed) == sorted(get_args(ErrorCode))


@pytest.mark.parametrize(
    ("code", "status", "body"),
    [
        ("credentials", "401 Unauthorized", b""),
        ("http_status", "500 Oh", b""),
        ("http_status", "503 Later", b""),
        ("redirect", "301 Moved", b""),
        ("html", "200 OK", b"<!doctype html>"),
        ("html", "200 OK", b"\xef\xbb\xbf<!doctype html>"),
        ("html", "200 OK", b"<p>caf\xe9 \\u0000"),
        ("not_json", "200 OK", b"{"),
        ("not_json", "200 OK", b'{"\xff": 1}'),
        ("invalid_answer", "200 OK", b"[]"),
        ("wrong_identity", "200 OK", encoded(page(minutes(2, size=1), node_id="us-2"))),
        ("too_large", "200 OK", b'{"a":[' + b"{}," * 700_000 + b"{}]}"),
        ("cursor", "200 OK", encoded(page(minutes(2), has_more=True))),
    ],
)
def test_a_wrong_answer_has_its_code(code: str, status: str, body: bytes) -> None:
    """Whatever the wording of the reason."""
    with serving(lambda visit: visit.send(http(body, status=status))) as server:
        assert failure(server.url).code == code


@pytest.mark.parametrize(
    ("code", "name", "timeout_seconds"),
    [
        ("timeout", "accepts and says nothing", 0.5),
        ("unreachable", "hangs up without an answer", 20.0),
        ("invalid_answer", "speaks another protocol", 20.0),
    ],
)
def test_a_broken_exchange_has_its_code(code: str, name: str, timeout_seconds: float) -> None:
    """What the network does is told from what the exporter says."""
    with serving(script_that(name)) as server:
        assert failure(server.url, timeout_seconds=timeout_seconds).code == code


@pytest.mark.parametrize(
    ("code", "fields"),
    [
        ("unreachable", {"base_url": "http://127.0.0.1:1"}),
        ("address", {"base_url": "http://jp-1.example"}),
        ("credentials", {"credential_ref": "file:/nowhere/token"}),
        ("credentials", {"ca_bundle": "/nowhere/bundle", "base_url": "https://127.0.0.1:1"}),
    ],
)
def test_a_source_that_is_not_asked_has_its_code(code: str, fields: dict[str, Any]) -> None:
    """A credential that cannot be read is a failure of its source."""
    assert failure(**{"base_url": "http://127.0.0.1:1"} | fields).code == code


def test_a_server_without_tls_has_its_code() -> None:
    """So has a certificate that is not trusted."""
    with serving(answering(b""), greets=True) as server:
        assert failure(server.url.replace("http:", "https:")).code == "tls"


def failure(base_url: str, **more: Any) -> ExporterError:
    """Return why a source fails."""
    with pytest.raises(ExporterError) as caught:
        fetched(base_url, **more)
    return caught.value


def test_an_abandoned_request_leaves_no_thread_behind() -> None:
    """Its socket is shut down, which ends even an endless `100 Continue`."""
    with serving(script_that("says 100 continue for ever")) as server:
        failure(server.url, timeout_seconds=0.3)
        for thread in threading.enumerate():
            if thread.name == "exchange":
                thread.join(30)
                assert not thread.is_alive()
