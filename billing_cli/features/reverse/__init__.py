"""`reverse`: gives back everything that a source charged in a range."""

from __future__ import annotations
