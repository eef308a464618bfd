"""What every key means: for the JSON Schema, the commented file and the reference page."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Key(NamedTuple):
    """A key of the configuration: what may be its value, and what it does, as Markdown."""

    kind: str
    meaning: str


SETTINGS: Mapping[str, Mapping[str, Key]] = {
    "The database": {
        "database_url": Key(
            "secret",
            "connection string, as a `postgresql://` URL or in libpq's `key=value` form. Commands"
            " that need the database say so where it is not set",
        ),
        "database_url_ref": Key(
            "reference",
            "where to read the connection string instead; see [secrets](#secrets). Not both in "
            "one place; where one stands in the environment and the other in the file, the "
            "environment counts",
        ),
        "connect_timeout_seconds": Key(
            "whole number, 1 to 300", "how long opening a connection may take"
        ),
        "statement_timeout_seconds": Key(
            "whole number, 1 to 3600", "how long one SQL statement may take"
        ),
        "lock_timeout_seconds": Key(
            "whole number, 1 to 3600",
            "how long a statement may wait for a row that another transaction holds",
        ),
    },
    "Sources and fetching": {
        "sources": Key(
            "list",
            "the exporters, each with the keys of [a source](#a-source). JSON in the environment,"
            " `[[sources]]` tables in the file. The lists are not mixed: one in the environment "
            "hides the file's",
        ),
        "exporter_base_url": Key(
            "URL", "a single exporter, with the id `default`. Counts only where no source is listed"
        ),
        "internal_service_token": Key(
            "secret",
            "Bearer token of every source that has none of its own, unless its `auth_mode` is "
            "`mtls` or `none`. Printable ASCII without spaces",
        ),
        "internal_service_token_ref": Key(
            "reference",
            "where to read that token instead; see [secrets](#secrets). The same rules as for "
            "`database_url_ref`",
        ),
        "shard": Key(
            "`I/N`",
            "the part of the sources that this host works on, such as `2/8`: the second of eight,"
            " 1 ≤ I ≤ N ≤ 9999. [Several hosts](operations.md#several-hosts) has how sources are "
            "parted. For `collect`, `catch-up` and `reconcile`; `--shard` goes before it, and a "
            "source that is named by `--source` is worked on anyway",
        ),
        "fetch_concurrency": Key(
            "whole number, 1 to 256", "how many exporters are asked at the same time"
        ),
        "run_deadline_seconds": Key(
            "number, up to 3600",
            "how long all fetching of one run may take together; a source that is not done by "
            "then is left to the next run. The unit's start timeout (50 s) leaves as long for the"
            " transaction",
        ),
        "page_limit": Key(
            "whole number, 1 to 10000",
            "how many snapshots are asked for in one page of a windowed exporter",
        ),
        "step_max_samples": Key(
            "whole number, from 1",
            "about how many samples one step takes, shared out among its sources; each gets at "
            "least one whole minute",
        ),
        "initial_lookback_hours": Key(
            "whole number, 0 to 8760", "how far back the first `collect` of a windowed source asks"
        ),
    },
    "Minutes and counters": {
        "settle_seconds": Key(
            "whole number, 0 to 3600",
            "how long after its end a minute is left open for snapshots that are still on their "
            "way",
        ),
        "late_after_seconds": Key(
            "number above 0",
            "neighbouring snapshots further apart than this leave a `late` gap: all bytes are "
            "kept, the minutes they fell in are blurred",
        ),
        "stalled_after_seconds": Key(
            "number above 0",
            "an exporter that answers but has had no new snapshot, or none with samples, for this"
            " long is `stalled`",
        ),
        "charge_first_snapshot": Key(
            "true or false",
            "whether the totals of a source's very first snapshot are charged. By default they "
            "are a baseline that charges nothing",
        ),
    },
    "Limits": {
        "account_rate_bits_per_second": Key(
            "whole number, 0 to 1000000000000000",
            "the plausible rate of one account on a node; traffic above it is held for a decision"
            " instead of charged. `0` disables the limit",
        ),
        "line_rate_bits_per_second": Key(
            "whole number, 0 to 1000000000000000",
            "the plausible rate of a node, all accounts together: the bandwidth of its line. `0` "
            "disables the limit",
        ),
        "burst_hours": Key(
            "number, 0 to 168",
            "how many hours of these rates an idle account or node can save up, because a long "
            "connection may report all of its traffic when it closes",
        ),
        "max_streams_per_account": Key(
            "whole number, 0 to 1000000000",
            "streams of one account on a node. Beyond one of these three limits the source fails "
            "and nothing of it is stored; counters that continue under other names do not count,"
            " and `billing sources accept ID` lets one run pass. `0` disables the limit",
        ),
        "max_new_streams_per_hour": Key(
            "whole number, 0 to 1000000000",
            "streams of a source that are new within an hour, those of its first snapshot included",
        ),
        "max_unresolved_streams_per_hour": Key(
            "whole number, 0 to 1000000000",
            "those of them whose uuid identifies no account",
        ),
        "max_daily_charge": Key(
            "decimal, 9 places",
            "the most that an account is charged for the minutes of one UTC day; usage above it is"
            " held for a decision. `0`, the default, is no maximum; recommended is a few times what"
            " the heaviest user pays",
        ),
        "max_daily_charge_per_source": Key(
            "decimal, 9 places",
            "the most that all accounts together are charged for one UTC day on the node of a "
            "source, likewise",
        ),
    },
    "Prices and quota": {
        "default_region": Key("text", "the region of sources that name none"),
        "source_revision": Key("text", "the pricing rule version that is written with each charge"),
        "price_per_byte": Key(
            "decimal, 0 to 1000000",
            "price of a byte beyond the quota, for accounts whose profile gives none. `1e-9` is a"
            " legal way to write it; no digit is lost, in TOML neither",
        ),
        "free_packages": Key(
            "list of texts",
            "`package_name`s of profiles that cost nothing, whatever `price_per_byte` says. JSON "
            'in the environment: `["trial"]`',
        ),
        "allow_zero_price": Key(
            "true or false",
            "whether an account without a price is charged a price of 0 instead of being an error",
        ),
        "initial_included_quota_bytes": Key(
            "whole number, 0 to 2⁶³-1",
            "quota of an account that is charged for the first time, and has none above 0 in its "
            "profile",
        ),
        "initial_balance": Key(
            "decimal, 9 places",
            "balance of an account that is charged for the first time; may be negative",
        ),
        "currency": Key(
            "text, up to 16 characters",
            "label of all amounts in texts, statements and JSON (`currency`); nothing is converted",
        ),
        "peak_hours": Key(
            "ranges",
            "daily hours with the peak multiplier, such as `18:00-23:30` or `07:00-09:00, "
            "22:00-02:00`. A range ends before its end, may go past midnight, and may end at "
            "`24:00`. Without it neither the peak nor the off-peak multiplier applies",
        ),
        "peak_timezone": Key(
            "IANA name",
            "the zone in which these hours are meant, such as `Europe/Berlin`; they follow its "
            "clock changes",
        ),
    },
    "Logging": {
        "log_level": Key(
            "`debug`, `info`, `warning`, `error`",
            "the least that is logged; `--log-level` goes before it",
        ),
        "log_format": Key(
            "`auto`, `console`, `json`",
            "`auto` is the coloured console on a terminal and JSON lines elsewhere; `--log-"
            "format` goes before it",
        ),
    },
    "Being watched": {
        "metrics_file": Key(
            "path",
            "where every run leaves its [metrics](metrics.md) for Prometheus, such as "
            "`/var/lib/billing-metrics/billing.prom`. A file that can't be written is a warning, "
            "never a failed run",
        ),
        "ping_url": Key(
            "secret",
            "the address of a [dead-man switch](metrics.md#the-dead-man-switch), which every "
            "`collect` calls when it begins and when it ends: `https://` (`http://` only to this "
            "machine), without user name, query or fragment",
        ),
        "ping_url_ref": Key(
            "reference",
            "where to read that address instead; see [secrets](#secrets). The same rules as for "
            "`database_url_ref`",
        ),
    },
}
"""The keys of the file by section, in the order of the page."""

SOURCE: Mapping[str, Key] = {
    "source_id": Key(
        "text, up to 128 characters, no white space",
        "the name by which commands, results and the database know the source",
    ),
    "base_url": Key(
        "URL",
        "where the exporter is: `https://`, a host, and perhaps a port and a path. No user name, "
        "query or fragment. `http://` only to this machine (`localhost`, `127.0.0.0/8`, `::1`)",
    ),
    "enabled": Key("true or false", "a disabled source is kept but never asked"),
    "expected_node_id": Key(
        "text",
        "the node that must answer. Two enabled sources that expect the same node are an error, "
        "because its bytes would be billed twice",
    ),
    "expected_env": Key("text", "the environment that must answer"),
    "mode": Key("`auto`, `window`, `latest`", "which of the exporter's interfaces to use"),
    "auth_mode": Key("`mtls`, `bearer`, `none`", "how the exporter knows us"),
    "credential_ref": Key("reference", "the source's own Bearer token; see [secrets](#secrets)"),
    "client_cert": Key(
        "file",
        "certificate for mTLS, in PEM: a path, or `credential:NAME`; see [secrets](#secrets). "
        "Needs `client_key`",
    ),
    "client_key": Key("file", "its private key, in PEM, likewise. Needs `client_cert`"),
    "ca_bundle": Key(
        "file", "certificates to trust for this source, instead of the system's; likewise"
    ),
    "server_name": Key(
        "host name", "the name to ask for and to verify, where the URL has an address"
    ),
    "timeout_seconds": Key(
        "number, up to 300", "how long a page may take, look-up, connection and repeats included"
    ),
    "collect_interval_seconds": Key(
        "number, 0 to 86400",
        "a run that starts earlier than this after the start of the last one leaves the source "
        "out; 0 asks every time",
    ),
    "region": Key("text", "written to buckets, and part of their key"),
    "allow_http": Key("true or false", "consent to unencrypted `http://` beyond this machine"),
    "proxy": Key(
        "URL",
        "an HTTP proxy for this source, as `http://host:port`; only with an `https://` address, "
        "or else the proxy would see everything. The usual proxy variables are not looked at",
    ),
    "account_rate_bits_per_second": Key("whole number from 0", "see [limits](#limits)"),
    "line_rate_bits_per_second": Key("whole number from 0", "see [limits](#limits)"),
    "max_streams_per_account": Key("whole number from 0", "see [limits](#limits)"),
    "max_new_streams_per_hour": Key("whole number from 0", "see [limits](#limits)"),
    "max_unresolved_streams_per_hour": Key("whole number from 0", "see [limits](#limits)"),
    "max_daily_charge": Key(
        "decimal, 9 places",
        "the source's own `max_daily_charge_per_source`; see [limits](#limits)",
    ),
    "pinned_sha256": Key(
        "SHA-256, or a list",
        "digests of the public keys (SPKI) that the exporter may have, hexadecimal or base64, in "
        "addition to the verification of its certificate; see "
        "[security](../security.md#pinned-keys)",
    ),
}
"""The keys of a source."""
