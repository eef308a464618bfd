"""`streams`: lists counters, their accounts and totals."""

from __future__ import annotations
