"""`collect`: moves each source one bounded step forward. The job is in `jobs/`."""

from __future__ import annotations
