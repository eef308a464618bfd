"""Whatever totals a node sends, in whatever order: what follows can be stored."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from billing_cli.core.model import StreamName
from billing_cli.core.succession import covers, total_of
from tests.unit.core.examples import examples
from tests.unit.core.stories import ALICE, ALICE_TCP, BOB, Ledger, snapshot

Totals = dict[StreamName, tuple[int, int]]

NAMES = (ALICE, ALICE_TCP, BOB)

# Bytes of very different sizes: what was charged since a restart that was none, and what is more.
sizes = st.one_of(st.integers(0, 9), st.integers(10, 400))
moved = st.tuples(*(st.tuples(sizes, sizes) for _ in NAMES))


@st.composite
def time_lines(draw: st.DrawFn) -> list[Totals]:
    """Return readings of one process in the order of their stamps, by a clock that was set back."""
    grown = draw(st.lists(moved, min_size=4, max_size=14))
    columns = [list(accumulate(column, _plus)) for column in zip(*grown, strict=True)]
    readings: list[Totals] = [
        dict.fromkeys(NAMES, (0, 0)),
        *(dict(zip(NAMES, row, strict=True)) for row in zip(*columns, strict=True)),
    ]
    set_back = draw(st.integers(1, len(readings) - 1))
    earlier, later = readings[:set_back], readings[set_back:]
    order = draw(st.permutations([True] * len(earlier) + [False] * len(later)))
    return [(earlier if is_earlier else later).pop(0) for is_earlier in order]


def _plus(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return total_of((one, other))


@examples()
@given(time_lines())
def test_no_usage_record_shrinks(history: list[Totals]) -> None:
    """The table refuses a record that ends below its start: its node could never go on."""
    books = Ledger()
    books.run_after_each(*(snapshot(f"{minute}:00", one) for minute, one in enumerate(history)))
    shrinking = [record for record in books.records if not covers(record.end, record.start)]
    assert shrinking == []
