"""What a run of `seal` did, as values, and the file that keeps its checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from billing_cli.core.objects import attributes
from billing_cli.core.result import RunResult

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date

    from billing_cli.cli.tables import Part


@dataclass(frozen=True, slots=True)
class SealResult(RunResult):
    """A run of `seal`: how many seals it appended, which days, and the newest checkpoint.

    `tree_size` is the number of leaves of the log. `checkpoint` is a signed note.
    """

    tree_size: int = 0
    appended_seals: int = 0
    sealed_days: tuple[date, ...] = ()
    checkpoint: str = ""

    @property
    def details(self) -> Mapping[str, Any]:
        """The log, and what was appended."""
        return {
            **attributes(self, "tree_size appended_seals sealed_days"),
            "checkpoint": self.checkpoint or None,
        }


def seal_parts(result: SealResult) -> list[Part]:
    """Return the newest checkpoint, and nothing else: it can be sent to a witness as it is."""
    return list(result.checkpoint.splitlines())
