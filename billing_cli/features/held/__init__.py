"""`held`: lists, releases and rejects deltas above the plausible rate."""

from __future__ import annotations
