"""The jobs against a simulated fleet, on a real database and over real HTTP."""

from __future__ import annotations
