"""`repair`: corrects balances in which charges were lost."""

from __future__ import annotations
