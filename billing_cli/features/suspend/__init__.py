"""`suspend`: suspends accounts in arrears, and releases them once they are settled."""

from __future__ import annotations
