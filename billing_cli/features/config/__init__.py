"""`config`: the JSON Schema of the configuration file, and the values that count."""

from __future__ import annotations
