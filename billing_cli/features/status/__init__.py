"""`status`: shows sources, watermarks, gaps and the last runs."""

from __future__ import annotations
