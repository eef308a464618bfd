"""Steps by even chance: what Hypothesis makes up by itself is too much alike for runs this dear.

It tries five small changes of each example and often leaves most rules out, which pays where an
example takes a millisecond. As a backend of its own this is asked for each choice instead, and
every sequence is a new one. What fails is still shrunk by Hypothesis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from hypothesis.internal.conjecture.providers import AVAILABLE_PROVIDERS, HypothesisProvider

if TYPE_CHECKING:
    from random import Random

BACKEND = "even-chance"

# Of 255 parts, how many of the rules Hypothesis leaves out of a sequence is the first thing that
# it asks for.
LEFT_OUT = (0, 254)
LEAST_RULES_LEFT_IN = 3


class EvenChance(HypothesisProvider):
    """Draws every integer of a range with the same chance."""

    def draw_integer(
        self, min_value: int | None = None, max_value: int | None = None, **others: Any
    ) -> int:
        """Return one of the range; where it has no end, whatever Hypothesis likes."""
        if min_value is None or max_value is None or others.get("weights") is not None:
            return super().draw_integer(min_value, max_value, **others)
        if (min_value, max_value) == LEFT_OUT:
            max_value //= LEAST_RULES_LEFT_IN
        chance = cast("Random", self._random)
        return chance.randint(min_value, max_value)


AVAILABLE_PROVIDERS[BACKEND] = EvenChance
