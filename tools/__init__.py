"""What is generated from the code: `python -m tools` writes the reference pages."""

from __future__ import annotations
