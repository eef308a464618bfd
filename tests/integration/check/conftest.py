"""An authority for exporters and clients, and a world without secrets of earlier tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trustme

from billing_cli.config import layers
from billing_cli.config.redaction import forget_secrets
from tests.support.authority import Authority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return a CA that no system trusts."""
    return Authority(trustme.CA(), tmp_path_factory.mktemp("authority"))


@pytest.fixture(autouse=True)
def _own_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(layers, "DEFAULT_CONFIG_PATH", str(tmp_path / "none.toml"))
    forget_secrets()
    yield
    forget_secrets()
