"""Mutation testing of the core: `python -m tests.unit.mutants`, or `make mutants`."""

from __future__ import annotations
