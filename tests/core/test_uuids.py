"""UUIDs by the column."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_cli.core.uuids import uuid_texts

if TYPE_CHECKING:
    from uuid import UUID


@pytest.mark.parametrize(
    "texts",
    [
        [],
        ["01234567-89ab-cdef-0123-456789abcdef"],
        ["00000000-0000-0000-0000-000000000001", "ffffffff-ffff-ffff-ffff-fffffffffffe"],
    ],
)
def test_uuids_are_told_in_their_order(texts: list[str]) -> None:
    """In the 8-4-4-4-12 form, in lower case."""
    packed = "".join(texts).replace("-", "")
    assert uuid_texts(bytes.fromhex(packed)) == texts


@given(st.lists(st.uuids(), max_size=5))
def test_any_uuids_are_told_as_the_standard_library_tells_them(uuids: list[UUID]) -> None:
    """However many of them there are."""
    assert uuid_texts(b"".join(one.bytes for one in uuids)) == list(map(str, uuids))
