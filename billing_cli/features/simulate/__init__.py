"""`simulate`: what a range would have cost under other prices."""

from __future__ import annotations
