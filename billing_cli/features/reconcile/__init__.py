"""`reconcile`: compares what is stored with history again. The job is in `jobs/`."""

from __future__ import annotations
