"""Merkle trees as in RFC 6962 (Certificate Transparency), section 2.1. Hashes are 32 bytes.

A tree is stored as its complete subtrees: the node at (level, position) is the root over the
leaves from `position << level` to `(position + 1) << level`. Level 0 are the leaf hashes. Every
root and every proof follows from O(log n) of these nodes.
"""

from __future__ import annotations

from functools import reduce
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

EMPTY_ROOT = sha256().digest()


class NodePlace(NamedTuple):
    """Where a complete subtree of `2 ** level` leaves is."""

    level: int
    position: int


class LeafRange(NamedTuple):
    """The leaves from `start` up to, and without, `end`."""

    start: int
    end: int


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of two subtrees together."""
    return sha256(b"\x01" + left + right).digest()


class TreeBuilder:
    """Appends leaves to a tree; holds the roots of its O(log n) largest complete subtrees only."""

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        """Go on with a tree of `size` leaves, whose nodes at `peak_places(size)` are `peaks`."""
        self.size = size
        self._peaks = list(peaks)

    def append(self, leaf: bytes) -> list[tuple[NodePlace, bytes]]:
        """Append a leaf hash; return the nodes that became complete, the leaf itself first."""
        place, node = NodePlace(0, self.size), leaf
        nodes = [(place, node)]
        while place.position % 2:
            place = NodePlace(place.level + 1, place.position // 2)
            node = node_hash(self._peaks.pop(), node)
            nodes.append((place, node))
        self._peaks.append(node)
        self.size += 1
        return nodes

    def root(self) -> bytes:
        """Return the root of all leaves so far."""
        return _root_of(self._peaks)


def tree_root(leaves: Iterable[bytes]) -> bytes:
    """Return the root of a tree with these leaf hashes."""
    tree = TreeBuilder()
    for leaf in leaves:
        tree.append(leaf)
    return tree.root()


def peak_places(size: int) -> list[NodePlace]:
    """Return the largest complete subtrees of a tree, from left to right."""
    return range_places(LeafRange(0, size))


def range_places(leaves: LeafRange) -> list[NodePlace]:
    """Return the complete subtrees that a subtree of the tree consists of, from left to right."""
    start, end = leaves
    places = []
    while start < end:
        level = (end - start).bit_length() - 1
        places.append(NodePlace(level, start >> level))
        start += 1 << level
    return places


def root_of_range(leaves: LeafRange, nodes: Mapping[NodePlace, bytes]) -> bytes:
    """Return the root of a subtree from the nodes at `range_places(leaves)`."""
    return _root_of([nodes[place] for place in range_places(leaves)])


def inclusion_ranges(index: int, size: int) -> list[LeafRange]:
    """Return the subtrees whose roots prove that a leaf is in a tree, the nearest one first.

    Raises ValueError where there is no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    ranges: list[LeafRange] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            ranges.append(LeafRange(middle, end))
            end = middle
        else:
            ranges.append(LeafRange(start, middle))
            start = middle
    return ranges[::-1]


def consistency_ranges(old_size: int, size: int) -> list[LeafRange]:
    """Return the subtrees whose roots prove that a tree begins with an older one, in RFC order.

    Raises ValueError unless 0 < old_size <= size.
    """
    if not 0 < old_size <= size:
        raise ValueError(f"a tree of {size} leaves does not begin with one of {old_size}")
    ranges: list[LeafRange] = []
    start, end, is_old_tree = 0, size, True
    while end != old_size:
        middle = start + _split(end - start)
        if old_size <= middle:
            ranges.append(LeafRange(middle, end))
            end = middle
        else:
            ranges.append(LeafRange(start, middle))
            start, is_old_tree = middle, False
    if not is_old_tree:
        ranges.append(LeafRange(start, end))
    return ranges[::-1]


def places_of(ranges: Iterable[LeafRange]) -> set[NodePlace]:
    """Return the stored nodes that a proof needs."""
    return {place for leaves in ranges for place in range_places(leaves)}


def proof_of(ranges: Iterable[LeafRange], nodes: Mapping[NodePlace, bytes]) -> list[bytes]:
    """Return a proof: the root of each subtree."""
    return [root_of_range(leaves, nodes) for leaves in ranges]


def root_by_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """Return the root that a tree has if the proof is right. Raises ValueError by its length."""
    ranges = inclusion_ranges(index, size)
    if len(ranges) != len(proof):
        raise ValueError(f"the proof has {len(proof)} hashes instead of {len(ranges)}")
    root = leaf
    for leaves, node in zip(ranges, proof, strict=True):
        root = node_hash(node, root) if leaves.end <= index else node_hash(root, node)
    return root


def is_consistent(
    old_size: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]
) -> bool:
    """Return whether a proof shows that the tree begins with the older one."""
    if old_size in {0, size}:
        return not proof and old_root == (root if old_size else EMPTY_ROOT)
    ranges = consistency_ranges(old_size, size)
    if len(ranges) != len(proof):
        return False
    # Where the older tree is one complete subtree, its root is not repeated in the proof.
    is_first_known = ranges[0].end > old_size
    steps = list(zip(ranges, proof, strict=True))
    old = new = old_root if is_first_known else proof[0]
    for leaves, node in steps if is_first_known else steps[1:]:
        if leaves.end <= old_size:
            old, new = node_hash(node, old), node_hash(node, new)
        else:
            new = node_hash(new, node)
    return (old, new) == (old_root, root)


def levels_of(leaves: Sequence[bytes]) -> Iterator[tuple[NodePlace, bytes]]:
    """Yield every complete subtree of a tree with these leaf hashes."""
    tree = TreeBuilder()
    for leaf in leaves:
        yield from tree.append(leaf)


def _split(size: int) -> int:
    """Return the largest power of two below a size above 1."""
    return 1 << ((size - 1).bit_length() - 1)


def _root_of(peaks: Sequence[bytes]) -> bytes:
    if not peaks:
        return EMPTY_ROOT
    return reduce(lambda root, peak: node_hash(peak, root), reversed(peaks[:-1]), peaks[-1])
