"""`catch-up`: repeats bounded steps until each source is current. The job is in `jobs/`."""

from __future__ import annotations
