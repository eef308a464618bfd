"""`seal`: appends the seals of committed runs to the log, and signs its head."""

from __future__ import annotations
