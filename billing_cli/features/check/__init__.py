"""`check`: inspects configuration, database and sources before the timer is enabled."""

from __future__ import annotations
