"""Each test starts without a system-wide file, without known secrets, and leaves no logging."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import structlog

from billing_cli.config import layers
from billing_cli.config.redaction import forget_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _own_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(layers, "DEFAULT_CONFIG_PATH", str(tmp_path / "etc" / "billing.toml"))
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    forget_secrets()
    yield
    forget_secrets()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()
