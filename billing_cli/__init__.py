"""Replay-safe usage billing for fleets of proxy nodes."""

from __future__ import annotations

__version__ = "0.1.0"
