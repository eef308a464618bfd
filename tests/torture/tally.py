"""What an attack came to: how often a fault struck, and what it did to the books."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tally:
    """A row of the table: a fault, how often it struck, and what was wrong afterwards.

    Bytes are counted by account against the simulator's oracle, `wrong_nanos` is the sum of what
    balances are off by, in 1e-9 of the currency, and `broken_invariants` counts every other
    contradiction that was found. `detail` is a remark for the reader of the table.
    """

    fault: str
    runs: int
    lost_bytes: int = 0
    doubled_bytes: int = 0
    broken_invariants: int = 0
    wrong_nanos: int = 0
    detail: str = ""

    @property
    def is_clean(self) -> bool:
        """Whether nothing at all is wrong."""
        return not (
            self.lost_bytes or self.doubled_bytes or self.broken_invariants or self.wrong_nanos
        )

    def plus(self, other: Tally) -> Tally:
        """Return both together, under the name and the remark of this one."""
        return Tally(
            self.fault,
            self.runs + other.runs,
            self.lost_bytes + other.lost_bytes,
            self.doubled_bytes + other.doubled_bytes,
            self.broken_invariants + other.broken_invariants,
            self.wrong_nanos + other.wrong_nanos,
            self.detail,
        )
