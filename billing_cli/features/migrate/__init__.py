"""`migrate`: brings the schema to this version."""

from __future__ import annotations
