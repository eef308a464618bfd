"""The imperative shell: what a run does, in order. Clock and identity come in as arguments."""

from __future__ import annotations
