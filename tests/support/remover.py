"""Removes the server of a session once that has ended: `python -m tests.support.remover DIRECTORY`.

Whoever was killed leaves nothing running.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.postgres import remove_when_released

if __name__ == "__main__":
    remove_when_released(Path(sys.argv[1]))
