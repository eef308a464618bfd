"""`statement`: what an account was charged in a month, verifiable without access to anything."""

from __future__ import annotations
