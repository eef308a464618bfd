"""Configuration, logging and peak hours."""

from __future__ import annotations
