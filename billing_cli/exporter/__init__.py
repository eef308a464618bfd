"""The wire: HTTP client, TLS and credentials, strict decoding into core values."""

from __future__ import annotations
