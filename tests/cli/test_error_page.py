"""docs/errors.md lists the error codes that programs may rely on."""

from __future__ import annotations

import re
from pathlib import Path

from billing_cli.errors import EXIT_CODES

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
ROW = re.compile(r"^\| `(\w+)` \| ([\d+n]+) \|", re.MULTILINE)


def test_every_code_is_listed_with_its_exit_code() -> None:
    """No more and no fewer than the table in the code."""
    listed = dict(ROW.findall(PAGE.read_text("utf-8")))
    expected = {code: str(exit_code) for code, exit_code in EXIT_CODES.items()}
    assert listed == expected | {"interrupted": "128+n"}
