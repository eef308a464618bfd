"""What every key means, as Markdown: for the JSON Schema and the reference page.

Types, limits and defaults are in `settings.py` and `source.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

SETTINGS: Mapping[str, Mapping[str, str]] = {
    "The database": {
        "database_url": (
            "connection string, as a `postgresql://` URL or in libpq's `key=value` form. Commands "
            "that need the database say so where it is not set"
        ),
        "database_url_ref": (
            "where to read the connection string instead; see [secrets](#secrets). Not both in one "
            "place; where one stands in the environment and the other in the file, the "
            "environment counts"
        ),
        "connect_timeout_seconds": "how long opening a connection may take",
        "statement_timeout_seconds": "how long one SQL statement may take",
        "lock_timeout_seconds": (
            "how long a statement may wait for a row that another transaction holds"
        ),
    },
    "Sources and fetching": {
        "sources": (
            "the exporters, each with the keys of [a source](#a-source). JSON in the environment, "
            "`[[sources]]` tables in the file. The lists are not mixed: one in the environment "
            "hides the file's"
        ),
        "exporter_base_url": (
            "the URL of a single exporter, with the id `default`. Counts only where no source is "
            "listed"
        ),
        "internal_service_token": (
            "Bearer token of every source that has none of its own, unless its `auth_mode` is "
            "`mtls` or `none`. Printable ASCII without spaces"
        ),
        "internal_service_token_ref": (
            "where to read that token instead; see [secrets](#secrets). The same rules as for "
            "`database_url_ref`"
        ),
        "shard": (
            "the part of the sources that this host works on, such as `2/8`: the second of eight, "
            "1 ≤ I ≤ N ≤ 9999. [Several hosts](operations.md#several-hosts) has how sources are "
            "parted. For `collect`, `catch-up` and `reconcile`; `--shard` goes before it, and a "
            "source that is named by `--source` is worked on anyway"
        ),
        "fetch_concurrency": "how many exporters are asked at the same time",
        "run_deadline_seconds": (
            "how long all fetching of one run may take together; a source that is not done by then "
            "is left to the next run. The unit's start timeout (50 s) leaves as long for the "
            "transaction"
        ),
        "page_limit": "how many snapshots are asked for in one page of a windowed exporter",
        "step_max_samples": (
            "about how many samples one step takes, shared out among its sources; each gets at "
            "least one whole minute"
        ),
        "initial_lookback_hours": "how far back the first `collect` of a windowed source asks",
    },
    "Minutes and counters": {
        "settle_seconds": (
            "how long after its end a minute is left open for snapshots that are still on their way"
        ),
        "late_after_seconds": (
            "neighbouring snapshots further apart than this leave a `late` gap: all bytes are "
            "kept, the minutes they fell in are blurred"
        ),
        "stalled_after_seconds": (
            "an exporter that answers but has had no new snapshot, or none with samples, for this "
            "long is `stalled`"
        ),
        "charge_first_snapshot": (
            "whether the totals of a source's very first snapshot are charged. By default they are "
            "a baseline that charges nothing"
        ),
    },
    "Limits": {
        "account_rate_bits_per_second": (
            "the plausible rate of one account on a node; traffic above it is held for a decision "
            "instead of charged. `0` disables the limit"
        ),
        "line_rate_bits_per_second": (
            "the plausible rate of a node, all accounts together: the bandwidth of its line. `0` "
            "disables the limit"
        ),
        "burst_hours": (
            "how many hours of these rates an idle account or node can save up, because a long "
            "connection may report all of its traffic when it closes"
        ),
        "max_streams_per_account": (
            "streams of one account on a node. Beyond one of these three limits the source fails "
            "and nothing of it is stored; counters that continue under other names do not count, "
            "and `billing sources accept ID` lets one run pass. `0` disables the limit"
        ),
        "max_new_streams_per_hour": (
            "streams of a source that are new within an hour, those of its first snapshot included"
        ),
        "max_unresolved_streams_per_hour": "those of them whose uuid identifies no account",
        "max_daily_charge": (
            "the most that an account is charged for the minutes of one UTC day, with up to 9 "
            "decimal places; usage above it is held for a decision. `0`, the default, is no "
            "maximum; recommended is a few times what the heaviest user pays"
        ),
        "max_daily_charge_per_source": (
            "the most that all accounts together are charged for one UTC day on the node of a "
            "source, likewise"
        ),
    },
    "Prices and quota": {
        "default_region": "the region of sources that name none",
        "source_revision": "the pricing rule version that is written with each charge",
        "price_per_byte": (
            "price of a byte beyond the quota, for accounts whose profile gives none. `1e-9` is a "
            "legal way to write it; no digit is lost, in TOML neither"
        ),
        "free_packages": (
            "`package_name`s of profiles that cost nothing, whatever `price_per_byte` says. JSON "
            'in the environment: `["trial"]`'
        ),
        "allow_zero_price": (
            "whether an account without a price is charged a price of 0 instead of being an error"
        ),
        "initial_included_quota_bytes": (
            "quota of an account that is charged for the first time, and has none above 0 in its "
            "profile"
        ),
        "initial_balance": (
            "balance of an account that is charged for the first time; may be negative, and has up "
            "to 9 decimal places"
        ),
        "currency": (
            "label of all amounts in texts, statements and JSON (`currency`); nothing is converted"
        ),
        "peak_hours": (
            "daily hours with the peak multiplier, such as `18:00-23:30` or `07:00-09:00, "
            "22:00-02:00`. A range ends before its end, may go past midnight, and may end at "
            "`24:00`. Without it neither the peak nor the off-peak multiplier applies"
        ),
        "peak_timezone": (
            "the zone in which these hours are meant, by its IANA name, such as `Europe/Berlin`; "
            "they follow its clock changes"
        ),
    },
    "Logging": {
        "log_level": "the least that is logged; `--log-level` goes before it",
        "log_format": (
            "`auto` is the coloured console on a terminal and JSON lines elsewhere; `--log-format` "
            "goes before it"
        ),
    },
    "Being watched": {
        "metrics_file": (
            "the file in which every run leaves its [metrics](metrics.md) for Prometheus, such as "
            "`/var/lib/billing-metrics/billing.prom`. A file that can't be written is a warning, "
            "never a failed run"
        ),
        "ping_url": (
            "the address of a [dead-man switch](metrics.md#the-dead-man-switch), which every "
            "`collect` calls when it begins and when it ends: `https://` (`http://` only to this "
            "machine), without user name, query or fragment"
        ),
        "ping_url_ref": (
            "where to read that address instead; see [secrets](#secrets). The same rules as for "
            "`database_url_ref`"
        ),
    },
}
"""The keys of the file by section, in the order of the page."""

SOURCE: Mapping[str, str] = {
    "source_id": (
        "the name by which commands, results and the database know the source; without white space"
    ),
    "base_url": (
        "where the exporter is: `https://`, a host, and perhaps a port and a path. No user name, "
        "query or fragment. `http://` only to this machine (`localhost`, `127.0.0.0/8`, `::1`)"
    ),
    "enabled": "a disabled source is kept but never asked",
    "expected_node_id": (
        "the node that must answer. Two enabled sources that expect the same node are an error, "
        "because its bytes would be billed twice"
    ),
    "expected_env": "the environment that must answer",
    "mode": "which of the exporter's interfaces to use",
    "auth_mode": "how the exporter knows us",
    "credential_ref": "where to read the source's own Bearer token; see [secrets](#secrets)",
    "client_cert": (
        "certificate for mTLS, in PEM: a path, or `credential:NAME`; see [secrets](#secrets). "
        "Needs `client_key`"
    ),
    "client_key": "its private key, in PEM, likewise. Needs `client_cert`",
    "ca_bundle": "certificates to trust for this source, instead of the system's; likewise",
    "server_name": "the host name to ask for and to verify, where the URL has an address",
    "timeout_seconds": "how long a page may take, look-up, connection and repeats included",
    "collect_interval_seconds": (
        "a run that starts earlier than this after the start of the last one leaves the source "
        "out; 0 asks every time"
    ),
    "region": "written to buckets, and part of their key",
    "allow_http": "consent to unencrypted `http://` beyond this machine",
    "proxy": (
        "an HTTP proxy for this source, as `http://host:port`; only with an `https://` address, or "
        "else the proxy would see everything. The usual proxy variables are not looked at"
    ),
    "account_rate_bits_per_second": "see [limits](#limits)",
    "line_rate_bits_per_second": "see [limits](#limits)",
    "max_streams_per_account": "see [limits](#limits)",
    "max_new_streams_per_hour": "see [limits](#limits)",
    "max_unresolved_streams_per_hour": "see [limits](#limits)",
    "max_daily_charge": "the source's own `max_daily_charge_per_source`; see [limits](#limits)",
    "pinned_sha256": (
        "SHA-256 digests, or only one, of the public keys (SPKI) that the exporter may have, "
        "hexadecimal or base64, in addition to the verification of its certificate; see "
        "[security](../security.md#pinned-keys)"
    ),
}
"""The keys of a source."""
