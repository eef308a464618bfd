"""Every SQL statement of the jobs and features, as one that PostgreSQL can be asked to explain."""

from __future__ import annotations

import pkgutil
import re
from importlib import import_module

import billing_cli.database
import billing_cli.features
from billing_cli.database.arrears import CLEAR_ARREARS_SINCE, SET_ARREARS_SINCE
from billing_cli.database.write_path import ARREARS_SINCE

# Declaring tables and taking old rows away is for whoever migrates, who owns them.
NOT_FOR_JOBS = {
    "billing_cli.features.migrate.adoption",
    "billing_cli.features.migrate.job",
    "billing_cli.features.prune.job",
    "billing_cli.database.columns",
    "billing_cli.database.metadata",
    "billing_cli.database.shared_metadata",
    "billing_cli.features.prune.queries",
    # Probes have a temporary table of their own.
    "billing_cli.features.check.server_probes",
    # Suspending accounts is for a role of its own.
    "billing_cli.features.suspend.job",
    # So is appending to the log.
    "billing_cli.features.seal.queries",
}

# What deployments with newer columns get filled in.
FILLED_IN = {
    "{arrears_since}": ARREARS_SINCE,
    "{set_since}": SET_ARREARS_SINCE,
    "{clear_since}": CLEAR_ARREARS_SINCE,
    "{period_start}": "period_start",
}

EXPLAINABLE = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b")
PARAMETER = re.compile(r"%\(\w+\)s")
GAP = re.compile(r"\{\w+\}")


def statements() -> dict[str, str]:
    """Return the statements by the names that they have in their modules."""
    found = {}
    for module_name in _modules_with_statements():
        if module_name in NOT_FOR_JOBS:
            continue
        names = vars(import_module(module_name))
        for name, text in names.items():
            if name.isupper() and isinstance(text, str) and EXPLAINABLE.match(text):
                filled = text
                for gap, column in FILLED_IN.items():
                    filled = filled.replace(gap, column)
                # What is left open here is filled into a statement with a name of its own.
                if not GAP.search(filled):
                    found[f"{module_name}.{name}"] = PARAMETER.sub("NULL", filled)
    return found


def _modules_with_statements() -> list[str]:
    """Return the modules of `database/`, and those of the features."""
    features = pkgutil.walk_packages(billing_cli.features.__path__, "billing_cli.features.")
    return [
        *(
            f"billing_cli.database.{module.name}"
            for module in pkgutil.iter_modules(billing_cli.database.__path__)
        ),
        *(feature.name for feature in features if not feature.ispkg),
    ]
