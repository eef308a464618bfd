"""Splitting JSON into its objects."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_cli.exporter.api import ExporterError
from billing_cli.exporter.json_values import objects_of
from tests.unit.core.examples import examples

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='ab"\\{}[],:\n é', max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=10,
)


@examples()
@given(
    st.lists(st.dictionaries(st.text(max_size=3), values, max_size=4), max_size=5),
    st.sampled_from([None, 1]),
    st.booleans(),
    st.booleans(),
    st.integers(1, 40),
)
def test_objects_come_out_as_they_went_in(
    objects: list[object], indent: int | None, in_array: bool, is_ascii: bool, size: int
) -> None:
    """In an array or one after the other, in any layout, and wherever the chunks are cut."""
    if in_array:
        text = json.dumps(objects, indent=indent, ensure_ascii=is_ascii)
    else:
        text = "\n".join(json.dumps(one, indent=indent, ensure_ascii=is_ascii) for one in objects)
    body = text.encode(errors="surrogatepass")
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    assert [json.loads(one) for one in objects_of(chunks, 10_000)] == objects


@pytest.mark.parametrize(
    ("why", "text"),
    [
        ("the content is no JSON object", "<html>"),
        ("the content is no JSON object", "7"),
        ("the content is no JSON object", '"{}"'),
        ("the content is no JSON object", "\ufeff{}"),
        ("the content is no JSON object", "[[]]"),
        ("the content is no JSON object", "[1, {}]"),
        ("what follows value 1 is no JSON object", "{} {"[:3] + "x"),
        ("what follows value 1 is no JSON object", "{}, {}"),
        ("what follows value 1 is no JSON object", "{} [{}]"),
        ("what follows value 1 is no JSON object", "[{}] {}"),
        ("what follows value 1 is no JSON object", "[{}]]"),
        ("ends within value 2", '{}\n{"a": [{"b": "}'),
        ("ends within value 1", "[{}"),
        ("ends within value 1", '{\n  "a": [\n    {\n      "b"'),
        ("line 2: invalid JSON", "{}\n{garbage\n{}\n"),
        ("line 4: invalid JSON", '{}\r\n\r\n{}\r\n{"a": "b\r\n{}\r\n'),
        ("line 3: invalid JSON", '[\n{},\n{"a": [,\n{}\n]'),
        ("line 3: invalid JSON", '{"a":\n1}\n{"a": [1}\n{}'),
    ],
)
def test_anything_else_is_an_error_that_names_the_place(why: str, text: str) -> None:
    """Nothing is skipped silently, a line that was cut short included."""
    with pytest.raises(ExporterError) as caught:
        list(objects_of([text.encode()], 1000))
    assert (caught.value.reason, caught.value.code) == (why, "not_json")


@pytest.mark.parametrize("size", [1, 7])
def test_a_line_is_named_wherever_the_chunks_are_cut(size: int) -> None:
    """Also where the rest of the file exceeds the bound of an object."""
    text = b'{"a": 1}\n' * 9 + b"{garbage\n" + b'{"a": 1}\n' * 30
    chunks = [text[start : start + size] for start in range(0, len(text), size)]
    for max_bytes in (100, 10_000):
        with pytest.raises(ExporterError, match="line 10: invalid JSON"):
            list(objects_of(chunks, max_bytes))


def test_an_object_has_a_bound() -> None:
    """One that never ends would fill the memory."""
    with pytest.raises(ExporterError, match="value 2 is longer than 100 bytes"):
        list(objects_of([b"{}\n{", *[b" " * 40] * 1000], 100))
