"""Parameters of a connection string that belong to drivers of Go and that libpq refuses.

Existing deployments share DATABASE_URL with services in Go. Such a parameter sets up that driver's
pool or cache of statements, or the session, which every transaction of ours sets up itself.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote

_POOL = """
pool_max_conns pool_min_conns pool_min_idle_conns pool_max_conn_lifetime
pool_max_conn_lifetime_jitter pool_max_conn_idle_time pool_health_check_period pool_ping_timeout
"""
_STATEMENTS = """
default_query_exec_mode statement_cache_capacity statement_cache_mode description_cache_capacity
min_read_buffer_size prefer_simple_protocol binary_parameters disable_prepared_binary_result
"""
# Sent to the server when a session starts. `role` is not among them: it decides about rights.
_RUN_TIME = """
timezone datestyle intervalstyle search_path statement_timeout lock_timeout
idle_in_transaction_session_timeout extra_float_digits standard_conforming_strings
client_min_messages default_transaction_isolation bytea_output
"""
IGNORED = frozenset(f"{_POOL}{_STATEMENTS}{_RUN_TIME}".split())

_KEYWORD = re.compile(
    r"\s*(?P<name>[^\s=]+)\s*=\s*(?:'(?:\\.|[^'\\])*'|(?!')(?:\\.|[^\s\\])*)", re.DOTALL
)


class ConnectionString(NamedTuple):
    """A connection string without the parameters that are ignored, and their names."""

    text: str
    ignored: tuple[str, ...]


def without_driver_parameters(text: str) -> ConnectionString:
    """Return a URI or libpq keyword string without parameters that only drivers of Go know.

    What can't be read stays as it is; libpq says what is wrong with it.
    """
    if "://" not in text:
        return _of_keywords(text)
    address, mark, query = text.partition("?")
    kept, ignored = [], []
    for pair in query.split("&"):
        name = unquote(pair.partition("=")[0])
        if name.lower() in IGNORED:
            ignored.append(name)
        else:
            kept.append(pair)
    if not ignored:
        return ConnectionString(text, ())
    return ConnectionString(address + mark * bool(kept) + "&".join(kept), tuple(ignored))


def _of_keywords(text: str) -> ConnectionString:
    kept, ignored, at = "", [], 0
    while found := _KEYWORD.match(text, at):
        at = found.end()
        if found["name"].lower() in IGNORED:
            ignored.append(found["name"])
        else:
            kept += found[0]
    if text[at:].strip():
        return ConnectionString(text, ())
    return ConnectionString(kept, tuple(ignored))
