"""The `billing` command as a process of its own, as users and timers start it."""

from __future__ import annotations
