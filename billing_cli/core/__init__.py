"""The pure core: minutes, deltas, rating. No clock, no I/O, no SQL, standard library only."""

from __future__ import annotations
