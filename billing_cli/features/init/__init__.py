"""`init`: writes a configuration that works, by questions or by options."""

from __future__ import annotations
