"""Merkle trees: roots, proofs, and what no proof can show."""

from __future__ import annotations

from itertools import product

import pytest

from billing_cli.core.merkle import (
    EMPTY_ROOT,
    TreeBuilder,
    consistency_ranges,
    inclusion_ranges,
    is_consistent,
    leaf_hash,
    levels_of,
    peak_places,
    places_of,
    proof_of,
    root_by_inclusion,
    tree_root,
)
from tests.unit.core import plain_seals

SIZES = range(1, 34)
LEAVES = [leaf_hash(bytes([number])) for number in range(SIZES[-1])]
NODES = dict(levels_of(LEAVES))


def test_roots_are_those_of_a_plain_recursion() -> None:
    """Whatever the size; appending one by one gives the same."""
    assert tree_root([]) == EMPTY_ROOT == plain_seals.root([])
    for size in SIZES:
        assert tree_root(LEAVES[:size]) == plain_seals.root(LEAVES[:size])


def test_a_tree_is_continued_from_its_peaks() -> None:
    """A log needs no more than these to go on."""
    for size in SIZES:
        tree = TreeBuilder(size - 1, [NODES[place] for place in peak_places(size - 1)])
        tree.append(LEAVES[size - 1])
        assert tree.root() == tree_root(LEAVES[:size])


def test_each_leaf_has_an_inclusion_proof() -> None:
    """It is made of O(log n) nodes, all of them complete subtrees, and proves no other leaf."""
    for size in SIZES:
        root = tree_root(LEAVES[:size])
        for index in range(size):
            ranges = inclusion_ranges(index, size)
            assert len(places_of(ranges)) <= 2 * size.bit_length()
            proof = proof_of(ranges, NODES)
            assert root_by_inclusion(LEAVES[index], index, size, proof) == root
            for other in range(size):
                is_same = root_by_inclusion(LEAVES[other], index, size, proof) == root
                assert is_same == (other == index)
    with pytest.raises(ValueError, match=r"^the proof has 1 hashes instead of 2$"):
        root_by_inclusion(LEAVES[0], 0, 4, LEAVES[:1])


@pytest.mark.parametrize("index", [-1, 4, 5])
def test_a_leaf_that_is_not_there_has_no_proof(index: int) -> None:
    """Rather than one that proves something else."""
    with pytest.raises(ValueError, match=rf"^a tree of 4 leaves has no leaf {index}$"):
        inclusion_ranges(index, 4)


def test_each_older_tree_is_consistent_with_each_later_one() -> None:
    """And no tree with another leaf is."""
    for old_size, size in product(SIZES, SIZES):
        if old_size > size:
            continue
        old, new = tree_root(LEAVES[:old_size]), tree_root(LEAVES[:size])
        proof = proof_of(consistency_ranges(old_size, size), NODES)
        assert is_consistent(old_size, old, size, new, proof)
        other = tree_root([*LEAVES[: old_size - 1], b"x" * 32])
        assert not is_consistent(old_size, other, size, new, proof)
        assert not is_consistent(old_size, old, size, other, proof)
        assert not is_consistent(old_size, old, size, new, [*proof, old])


def test_no_tree_begins_with_a_larger_one_and_each_begins_empty() -> None:
    """The empty tree needs no proof, and has none."""
    root = tree_root(LEAVES[:4])
    assert is_consistent(0, EMPTY_ROOT, 4, root, [])
    assert not is_consistent(0, EMPTY_ROOT, 4, root, [root])
    assert not is_consistent(0, root, 4, root, [])
    for old_size in (-1, 0, 5):
        match = rf"^a tree of 4 leaves does not begin with one of {old_size}$"
        with pytest.raises(ValueError, match=match):
            consistency_ranges(old_size, 4)
