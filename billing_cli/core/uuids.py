"""UUIDs by the column, for runs that have a hundred thousand of them."""

from __future__ import annotations

BYTES, CHARACTERS = 16, 36
_PLACES_OF_DIGITS = [place for place in range(CHARACTERS) if place not in {8, 13, 18, 23}]


def uuid_texts(values: bytes | bytearray) -> list[str]:
    """Return the canonical texts of UUIDs whose 16 bytes each lie one after the other."""
    digits = values.hex().encode()
    text = bytearray(b"-") * (len(values) // BYTES * CHARACTERS)
    # The same digit of all of them at once: a loop over UUIDs takes three times as long.
    for number, place in enumerate(_PLACES_OF_DIGITS):
        text[place::CHARACTERS] = digits[number :: 2 * BYTES]
    joined = text.decode()
    return [joined[start : start + CHARACTERS] for start in range(0, len(joined), CHARACTERS)]
