"""`explain`: shows how an account's charges were calculated."""

from __future__ import annotations
