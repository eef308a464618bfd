"""The command line that all features share: options, execution, output, observers."""

from __future__ import annotations
