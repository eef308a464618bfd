"""One folder per command: its options, queries, logic and output. None imports another."""

from __future__ import annotations
