"""All files that are generated from the code and checked in."""

from __future__ import annotations

from pathlib import Path

from tools import reference, share

ROOT = Path(__file__).parents[1]


def generated() -> dict[Path, str]:
    """Return each file's content by its path."""
    pages = {ROOT / "docs" / "reference" / name: text for name, text in reference.pages().items()}
    files = {ROOT / "share" / path: text for path, text in share.files().items()}
    return pages | files
