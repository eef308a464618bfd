"""Configuration: environment over file. Nothing heavy is imported before settings are loaded."""

from __future__ import annotations
