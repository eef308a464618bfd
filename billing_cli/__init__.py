"""Replay-safe usage billing for fleets of proxy nodes."""

from __future__ import annotations

try:
    # Written by the build, from the newest tag.
    from billing_cli._version import __version__
except ImportError:
    __version__ = "0.2.0"

__all__ = ["__version__"]
