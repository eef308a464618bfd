"""What proves a part of a log's leaves: the roots of everything between them."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from billing_cli.core.merkle import EMPTY_ROOT, LeafRange, node_hash

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def ranges_between(numbers: Sequence[int], size: int) -> list[LeafRange]:
    """Return the largest subtrees of a tree that hold none of some leaves, from left to right.

    `numbers` are in their order. There are O(log size) for each run of leaves without a gap.
    """
    found: list[LeafRange] = []

    def visit(start: int, end: int) -> None:
        if bisect_left(numbers, start) == bisect_left(numbers, end):
            found.append(LeafRange(start, end))
        elif end - start > 1:
            middle = start + _split(end - start)
            visit(start, middle)
            visit(middle, end)

    if size:
        visit(0, size)
    return found


def root_of_parts(
    leaves: Mapping[int, bytes], between: Mapping[LeafRange, bytes], size: int
) -> bytes:
    """Return the root of a tree from some of its leaf hashes and the roots between them.

    Each leaf is hashed into it: raises ValueError for one outside of the tree, or within a range
    whose root is given. Raises KeyError where one is missing.
    """
    numbers = sorted(leaves)
    if numbers and not 0 <= numbers[0] <= numbers[-1] < size:
        raise ValueError(f"a leaf number is outside of the log, which has {size} leaves")
    for start, end in between:
        if bisect_left(numbers, start) != bisect_left(numbers, end):
            raise ValueError(f"the root of leaves {start} to {end - 1} is in place of a leaf")

    def root(start: int, end: int) -> bytes:
        known = between.get(LeafRange(start, end))
        if known is not None:
            return known
        if end - start == 1:
            return leaves[start]
        middle = start + _split(end - start)
        return node_hash(root(start, middle), root(middle, end))

    return root(0, size) if size else EMPTY_ROOT


def _split(size: int) -> int:
    return 1 << ((size - 1).bit_length() - 1)
