"""`prune`: removes whole months of old usage records and charges."""

from __future__ import annotations
