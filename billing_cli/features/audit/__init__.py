"""`audit`: proves the invariants from the stored facts."""

from __future__ import annotations
