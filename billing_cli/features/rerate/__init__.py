"""`rerate`: re-rates charges at current prices."""

from __future__ import annotations
