"""`verify`: proves that facts, seals and the log are what they were."""

from __future__ import annotations
