"""The pure core: deltas, rating, pending usage, times and what runs say of themselves."""

from __future__ import annotations
