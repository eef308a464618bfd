"""What a run says: the result object as JSON and as text for people."""

from __future__ import annotations
