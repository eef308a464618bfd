"""Checkpoints and keys as text."""

from __future__ import annotations

from typing import Any

import pytest

from billing_cli.core.notes import (
    Checkpoint,
    parse_checkpoints,
    parse_signer_key,
    parse_verifier_key,
)
from billing_cli.signatures import generate_key, sign_checkpoint, signature_problem

SIGNER, VERIFIER = generate_key("example.com/log")
NOTES = [
    sign_checkpoint(Checkpoint("example.com/log", size, bytes([size]) * 32), SIGNER)
    for size in (1, 2, 30)
]


@pytest.mark.parametrize("separator", ["", "\n", "\n\n"])
def test_a_file_holds_checkpoints_one_after_the_other(separator: str) -> None:
    """With or without empty lines in between."""
    found = parse_checkpoints(separator.join(NOTES))
    assert [one.checkpoint.size for one in found] == [1, 2, 30]
    assert [signature_problem(one, [VERIFIER]) for one in found] == [None] * 3


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("\n2\n", "\n3\n", "is wrong"),
        ("example.com/log\n2", "example.com/other\n2", "is wrong"),
    ],
)
def test_a_changed_checkpoint_is_not_vouched_for(old: str, new: str, match: str) -> None:
    """Whatever line was changed."""
    (found,) = parse_checkpoints(NOTES[1].replace(old, new, 1))
    problem = signature_problem(found, [VERIFIER])
    assert problem is not None
    assert match in problem


def test_a_checkpoint_by_another_key_is_not_vouched_for() -> None:
    """Of the same name; and a key of another log can't sign for this one."""
    other, other_verifier = generate_key("example.com/log")
    (found,) = parse_checkpoints(
        sign_checkpoint(Checkpoint("example.com/log", 1, b"1" * 32), other)
    )
    assert "none of the public keys" in str(signature_problem(found, [VERIFIER]))
    assert signature_problem(found, [VERIFIER, other_verifier]) is None
    stranger, strange_verifier = generate_key("example.com/other")
    (found,) = parse_checkpoints(
        sign_checkpoint(Checkpoint("example.com/log", 1, b"1" * 32), stranger)
    )
    assert "none of the public keys" in str(signature_problem(found, [strange_verifier]))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        NOTES[0][:-1],
        NOTES[0].split("\n\n")[0] + "\n",
        NOTES[0].replace("\n1\n", "\n01\n"),
        NOTES[0].replace("\n1\n", "\n"),
        NOTES[0].replace("AQEB", "AQE*", 1),
        NOTES[0] + "more\n",
        NOTES[0].replace("\u2014 example.com/log ", "\u2014 "),
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    """Torn files above all."""
    with pytest.raises(ValueError, match=r"checkpoint|base64|log"):
        parse_checkpoints(text)


def test_a_damaged_key_is_refused() -> None:
    """Its id is a checksum; what is refused never repeats a private key."""
    signer, verifier = generate_key("example.com/log")
    with pytest.raises(ValueError, match="does not match its id"):
        parse_verifier_key(f"other+{verifier.key_id.hex()}+AQ" + "A" * 42)
    with pytest.raises(ValueError, match="Ed25519") as refused:
        parse_signer_key(f"PRIVATE+KEY+name+{signer.key_id.hex()}+" + "A" * 44)
    assert "AAAA" not in str(refused.value)
    assert signer.seed.hex() not in repr(signer)
    with pytest.raises(ValueError, match="no spaces"):
        generate_key("two words")


def test_many_checkpoints_are_read_without_copying_the_rest_for_each() -> None:
    """The work grows with the length of the file, however many checkpoints are in it."""
    copied = 0

    class Lines(list[str]):
        def __getitem__(self, place: Any) -> Any:
            nonlocal copied
            found = super().__getitem__(place)
            copied += len(found) if isinstance(place, slice) else 0
            return found

    class Text(str):
        __slots__ = ()

        def split(self, *arguments: Any) -> Any:
            return Lines(super().split(*arguments))

    text = Text(NOTES[0] * 200)
    assert len(parse_checkpoints(text)) == 200
    assert copied <= len(text.split("\n"))
