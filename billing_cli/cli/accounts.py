"""An account on the command line: its uuid, a proxy uuid of it, or its e-mail address."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import click


class AccountType(click.ParamType[str]):
    """A uuid, or an e-mail address."""

    name = "account"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return a uuid in its usual form, or the address as it is; or fail as a usage error."""
        if "@" in str(value):
            return str(value)
        try:
            return str(UUID(value))
        except ValueError:
            self.fail(f"{value!r} is neither a uuid nor an e-mail address", param, ctx)
