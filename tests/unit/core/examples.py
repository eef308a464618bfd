"""How hard property tests look, without a word about time."""

from __future__ import annotations

from hypothesis import HealthCheck, settings


def examples(count: int = 100) -> settings:
    """Return settings that try so many examples, however busy the machine is."""
    return settings(deadline=None, max_examples=count, suppress_health_check=[HealthCheck.too_slow])
