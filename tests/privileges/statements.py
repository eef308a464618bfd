"""Every SQL statement of the store, as one that PostgreSQL can be asked to explain."""

from __future__ import annotations

import pkgutil
import re
from importlib import import_module

import billing_cli.database
from billing_cli.database.accounts import ARREARS_SINCE

# Declaring tables and taking old rows away is for whoever migrates, who owns them.
NOT_FOR_JOBS = {"columns", "metadata", "prune", "shared_metadata"}

EXPLAINABLE = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b")
PARAMETER = re.compile(r"%\(\w+\)s")
GAP = re.compile(r"\{\w+\}")


def statements() -> dict[str, str]:
    """Return the statements by the names that they have in their modules."""
    found = {}
    for module in pkgutil.iter_modules(billing_cli.database.__path__):
        if module.name in NOT_FOR_JOBS:
            continue
        names = vars(import_module(f"billing_cli.database.{module.name}"))
        for name, text in names.items():
            if name.isupper() and isinstance(text, str) and EXPLAINABLE.match(text):
                filled = text.replace("{arrears_since}", ARREARS_SINCE)
                # What is left open here is filled into a statement with a name of its own.
                if not GAP.search(filled):
                    found[f"{module.name}.{name}"] = PARAMETER.sub("NULL", filled)
    return found
