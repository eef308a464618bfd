from __future__ import annotations

from typing import Any

import pytest

from billing_cli.exporter.api import ExporterError
from billing_cli.exporter.limits import DEFAULT_LIMITS
from billing_cli.exporter.strict_json import checked_text, parse_strict, shown


@pytest.mark.parametrize(
    ("why", "body"),
    [
        ("not JSON", b""),
        ("not JSON", b"<html><body>It works!</body></html>"),
        ("not JSON", b'{"a":1'),
        ("not JSON", b'{"a":1}{"a":1}'),
        ("not JSON", b'{"a":1,}'),
        ("not JSON", b"{'a':1}"),
        ("not JSON", b'{"a":01}'),
        ("not JSON", b'{"a":"\n"}'),
        ("not JSON", b'{"a":"\x00"}'),
        ("not JSON: NaN", b'{"a":NaN}'),
        ("not JSON: Infinity", b'{"a":Infinity}'),
        ("not JSON: -Infinity", b'{"a":-Infinity}'),
        ("byte order mark", b'\xef\xbb\xbf{"a":1}'),
        ("not UTF-8", b'{"a":"\xff"}'),
        ("not UTF-8", b'{"a":"\xed\xa0\x80"}'),
        ("not UTF-8", b'{"a":"\xc0\x80"}'),
        ("not UTF-8", '{"a":1}'.encode("utf-16")),
        ("a NUL", rb'{"a":"\u0000"}'),
        ("a NUL", rb'{"a":[1,{"\u0000":2}]}'),
        ("a NUL", rb'{"a":"\ud83d\ude00 \u0000"}'),
        ("surrogate", rb'{"a":"\ud800"}'),
        ("surrogate", rb'{"a":"\uDFFF"}'),
        ("surrogate", rb'{"\udead":1}'),
        ("the key 'a' twice", b'{"a":1,"a":1}'),
        ("the key 'a' twice", rb'{"x":[{"a":1,"b":2,"\u0061":3}]}'),
        ("nested too deeply", b"[" * 100_000),
        ("nested too deeply", b'{"a":' * 100_000),
        ("too many digits", b'{"a":' + b"9" * 5000 + b"}"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_not_plain_json_is_refused(why: str, body: bytes) -> None:
    """Whatever parsers disagree about is an error, with a reason of one line."""
    with pytest.raises(ExporterError) as caught:
        parsed(body)
    assert why in caught.value.reason
    assert "\n" not in caught.value.reason


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (rb'{"a":"\\u0000 \ud83d\ude00 \u00e9"}', {"a": "\\u0000 \U0001f600 \u00e9"}),
        ('{"a":"é\U0001f600"}'.encode(), {"a": "é\U0001f600"}),
        (b' {"a": [1, 1.5, -0, 1e2, true, null]} \n', {"a": [1, 1.5, 0, 100.0, True, None]}),
        (b'{"a":' + b"9" * 400 + b"}", {"a": int("9" * 400)}),
        (b"[" * 100 + b"]" * 100, None),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_plain_json_is_parsed(body: bytes, value: Any) -> None:
    """Escapes, wide characters and large integers are none of them suspicious in themselves."""
    result = parsed(body)
    if value is not None:
        assert result == value


@pytest.mark.parametrize(
    "piece",
    [b"[],", b"{},", b'{"":0},', b"[" * 500 + b"]" * 500 + b",", b'"ab",', b"1000,"],
    ids=lambda value: repr(value)[:30],
)
def test_a_small_body_cannot_take_much_memory(piece: bytes) -> None:
    """Short values cost many times their length; such a body is refused before it is parsed."""
    limit = 1_000_000
    body = b"[" + piece * (limit // 8 // len(piece)) + b"0]"
    with pytest.raises(ExporterError, match="too much memory"):
        checked_text(body, max_decoded_bytes=limit)


def test_one_wide_character_counts_for_the_whole_text() -> None:
    """Python keeps all characters of a string as wide as the widest."""
    body = b'"' + b"a" * 40_000 + "\U0001f600".encode() + b'"'
    with pytest.raises(ExporterError, match="too much memory"):
        checked_text(body, max_decoded_bytes=100_000)
    assert checked_text(b'"' + b"a" * 40_000 + b'"', max_decoded_bytes=100_000)


def test_values_are_shown_whole_or_by_kind() -> None:
    """Never in part: half a secret could not be masked."""
    assert shown("abc") == "'abc'"
    assert shown("x" * 257) == "257 characters"
    assert shown(10**5000) == "an integer"


def parsed(body: bytes) -> Any:
    """Return the value of a body as the decoder parses it."""
    return parse_strict(checked_text(body, max_decoded_bytes=DEFAULT_LIMITS.decoded_bytes))
