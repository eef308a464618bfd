"""External text can neither move a cursor nor forge or reorder what is shown."""

from __future__ import annotations

import pytest

from billing_cli.config.redaction import forget_secrets
from billing_cli.errors import BillingError, SchemaError
from billing_cli.printable import printable

HOSTILE = {
    "control": "\x1b[2J",
    "second control set": "\x9b2J",
    "line feed": "\nERROR forged",
    "carriage return": "\roverwritten",
    "line separator": "\u2028forged",
    "paragraph separator": "\u2029forged",
    "right-to-left override": "\u202egnp.exe",
    "zero width": "jp\u200b-1",
    "lone surrogate": "\ud800",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_characters_that_act_on_a_terminal_are_shown_as_escapes(text: str) -> None:
    """In text, and in every error, whatever raised it."""
    assert printable(text).isprintable()
    assert "\\" in printable(text)
    assert str(BillingError(f"the server says {text}")).isprintable()
    assert str(SchemaError(text)).isprintable()


def test_readable_text_stays_as_it_is() -> None:
    """Names in any script, and the line breaks that the caller keeps."""
    forget_secrets()
    assert printable("東京-1 ñ \\x1b") == "東京-1 ñ \\x1b"
    assert printable("two\nlines\t", keep="\n") == "two\nlines\\t"
