"""The pages for engineers are true of the tree that they describe."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from billing_cli.database.write_path import ADVANCE, CHARGE, FINISH, RECORD

ROOT = Path(__file__).parents[2]
DEV = ROOT / "docs" / "dev"
PAGES = sorted(DEV.glob("*.md"))
MOST_WORDS = 6_000

# In code: a folder such as `core/`, or a file in one; paths may begin in the package.
PATH = re.compile(r"`((?:\.?[\w-]+/)+(?:[\w-]+\.\w+)?)`")
LINK = re.compile(r"\]\((?!https:)([^)#]+)")


def row_names(page: str, header: str) -> list[str]:
    """Return the first cells of the table with this header, without the marks for code."""
    lines = (DEV / page).read_text("utf-8").splitlines()
    rows = lines[next(i for i, line in enumerate(lines) if line.startswith(header)) + 2 :]
    end = next(i for i, line in enumerate(rows) if not line.startswith("|"))
    return [row.split("|")[1].strip().strip("`/") for row in rows[:end]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_file_that_a_page_names_exists(page: Path) -> None:
    """Paths in code begin at the root or in the package, links at the page."""
    text = page.read_text("utf-8")
    named = [(path, (ROOT / path, ROOT / "billing_cli" / path)) for path in PATH.findall(text)]
    named += [(link, (DEV / link,)) for link in LINK.findall(text)]
    missing = [name for name, places in named if not any(place.exists() for place in places)]
    assert missing == []


def test_the_pages_are_read_in_an_afternoon() -> None:
    """All of them together, without the specification of seals, which is for reference."""
    pages = [page for page in PAGES if page.name != "sealing.md"]
    assert sum(len(page.read_text("utf-8").split()) for page in pages) <= MOST_WORDS


def test_the_import_table_has_a_row_for_each_package() -> None:
    """No package is left out, and none is made up."""
    packages = {path.parent.name for path in (ROOT / "billing_cli").glob("*/__init__.py")}
    assert set(row_names("architecture.md", "| package |")) == packages


def test_the_statements_of_a_run_are_listed_in_order() -> None:
    """The data model names each statement that writes, as it is executed."""
    executed = [statement.name for statement in (*RECORD, *CHARGE, *ADVANCE, *FINISH)]
    assert row_names("data-model.md", "| statement |") == executed
