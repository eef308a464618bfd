"""`usage`: bytes and money of a range by day, hour, node, inbound tag or account."""

from __future__ import annotations
