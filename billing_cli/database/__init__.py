"""PostgreSQL: one transaction, set-based SQL. Statements are named, commented and stand on top."""

from __future__ import annotations
