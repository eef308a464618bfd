"""External text as a terminal, a log and an error may show it.

Names of exporters, rows of the shared tables and messages of a server may hold characters that move
a cursor, hide or reorder text, or forge a line. What people read of it passes through `printable`.
"""

from __future__ import annotations


def printable(text: str, *, keep: str = "") -> str:
    """Return the text with control, format and line-separator characters as escapes.

    Among them are line breaks and the marks that reorder text; `keep` names characters that stay.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in keep
        else character.encode("unicode_escape").decode()
        for character in text
    )
