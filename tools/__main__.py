"""`python -m tools`: writes what is generated, the reference pages and the files in share/."""

from __future__ import annotations

import sys

from tools.generated import ROOT, generated

for path, text in generated().items():
    if not path.exists() or path.read_text("utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        sys.stdout.write(f"wrote {path.relative_to(ROOT)}\n")
