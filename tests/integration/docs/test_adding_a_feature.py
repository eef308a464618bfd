"""The feature that the page for engineers adds works as it stands there."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support import story as stories

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "dev" / "adding-a-feature.md").read_text("utf-8")
# A section's file, if its heading names one, and its blocks.
SECTION = re.compile(
    r"^## \d\. [^\n`]*(?:`(\w+\.py)`)?\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL
)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
MODEL = Path("billing_cli") / "features" / "streams"
RENAMED = {
    "features.streams": "features.gaps",
    "StreamStatus": "StoredGap",
}


def test_the_feature_of_the_page_runs(
    story: stories.Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tests pass, in order, in a copy of the package to which its blocks were added."""
    shutil.copytree(ROOT / "billing_cli", tmp_path / "billing_cli")
    registered, tests = add_feature(tmp_path)
    root = tmp_path / "billing_cli" / "cli" / "root.py"
    text, count = re.subn(
        r'^ +"streams": .*\n',
        lambda line: line[0] + registered,
        root.read_text("utf-8"),
        flags=re.MULTILINE,
    )
    assert count == 1
    root.write_text(text, "utf-8")

    def billing(*arguments: str) -> stories.Command:
        done = subprocess.run(  # noqa: S603 - the copy
            [sys.executable, "-m", "billing_cli", *arguments],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path), **story.environment()},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return stories.Command(done.returncode, done.stdout, done.stderr)

    monkeypatch.setattr(story, "billing", billing)
    assert re.search(r"^  gaps +List the ranges", billing("--help").stdout, re.MULTILINE)
    names: dict[str, Any] = {**vars(stories)}
    exec(tests, names)  # noqa: S102 - the page's own tests
    for name in re.findall(r"^def (test_\w+)", tests, re.MULTILINE):
        names[name](story)


def add_feature(directory: Path) -> tuple[str, str]:
    """Write the page's files; return its line of `cli/root.py` and its tests."""
    feature = directory / MODEL.with_name("gaps")
    feature.mkdir()
    (feature / "__init__.py").write_text('"""`gaps`: lists gaps."""\n', "utf-8")
    others = []
    for file, text in SECTION.findall(PAGE):
        blocks = BLOCK.findall(text)
        if file:
            block, *blocks = blocks
            (feature / file).write_text(f"{imports_of(MODEL / file)}\n\n{block}", "utf-8")
        others += blocks
    registered, tests = others
    return registered, tests


def imports_of(model: Path) -> str:
    """Return the lines of a model's file up to its last import, with the feature's names."""
    source = (ROOT / model).read_text("utf-8")
    last = max(
        part.end_lineno or 0
        for part in ast.parse(source).body
        if isinstance(part, ast.Import | ast.ImportFrom | ast.If)
    )
    text = "\n".join(source.splitlines()[:last])
    for name, other in RENAMED.items():
        text = text.replace(name, other)
    return text
