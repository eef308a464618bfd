"""Click: arguments in, result out, exit code. One command per file, imported only when called."""

from __future__ import annotations
