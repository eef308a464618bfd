"""`archive`: a month of facts as files that prove themselves."""

from __future__ import annotations
