"""`held`: lists, releases and rejects usage that is held for a decision."""

from __future__ import annotations
