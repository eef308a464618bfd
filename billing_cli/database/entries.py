"""Ledger entries and the evidence for them: what a run charges, in the order of the ledger."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from billing_cli.database import arrays
from billing_cli.database.facts import Sent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import Connection

    from billing_cli.core.model import Charge

# Created-at rises in the order given, because readers take the newest entries by it. It counts
# from the statement, not from the transaction, which may have waited for another one's entries.
ADD_LEDGER_ENTRIES = """
INSERT INTO public.billing_ledger
       (id, account_uuid, bucket_start, bucket_end, entry_type, rated_bytes, amount_delta,
        balance_after, pricing_rule_version, created_at)
SELECT ledger_id, account_uuid, bucket_start, bucket_start + interval '1 minute',
       coalesce(entry_type, 'traffic_charge'), rated_bytes, amount_delta, balance_after,
       %(pricing_rule_version)s, statement_timestamp() + ordinal * interval '1 microsecond'
  FROM (SELECT unnest(%(places)s::integer[]) AS place,
               generate_subscripts(%(places)s::integer[], 1) AS ordinal,
               unnest(%(ledger_ids)s::uuid[]) AS ledger_id,
               unnest(%(account_uuids)s::uuid[]) AS account_uuid,
               unnest(%(rated)s::bigint[]) AS rated_bytes,
               unnest(%(amount_doubles)s::double precision[]) AS amount_delta,
               unnest(%(balances_after)s::double precision[]) AS balance_after,
               unnest(%(entry_types)s::text[]) AS entry_type) AS given
  JOIN unnest(%(buckets)s::timestamptz[]) WITH ORDINALITY AS place (bucket_start, number)
    ON place.number = given.place
"""

ADD_MISSING_LEDGER_ENTRIES = f"""
{ADD_LEDGER_ENTRIES}
    ON CONFLICT (id) DO NOTHING
"""

ADD_CHARGES = """
INSERT INTO billing.charges
       (ledger_id, entry_type, adjusts, bucket_start, stored_node_id, account_uuid, region,
        line_code, included_bytes, rated_bytes, price_per_byte, multiplier, amount_delta,
        quota_before, balance_before, pricing_rule_version, run_id, reason)
SELECT ledger_id, coalesce(entry_type, 'traffic_charge'), adjusts, bucket_start, node_id,
       account_uuid, region, line_code, included_bytes, rated_bytes,
       price_per_byte, multiplier,
       amount_delta, quota_before, balance_before, %(pricing_rule_version)s, %(run_id)s,
       coalesce(reason, '')
  FROM (SELECT unnest(%(places)s::integer[]) AS place,
               unnest(%(ledger_ids)s::uuid[]) AS ledger_id,
               unnest(%(account_uuids)s::uuid[]) AS account_uuid,
               unnest(%(included)s::bigint[]) AS included_bytes,
               unnest(%(rated)s::bigint[]) AS rated_bytes,
               unnest(%(tariffs)s::integer[]) AS tariff,
               unnest(%(amounts)s::numeric[]) AS amount_delta,
               unnest(%(quotas_before)s::bigint[]) AS quota_before,
               unnest(%(balances_before)s::numeric[]) AS balance_before,
               unnest(%(entry_types)s::text[]) AS entry_type,
               unnest(%(adjusts)s::uuid[]) AS adjusts,
               unnest(%(reasons)s::text[]) AS reason) AS given
  JOIN unnest(%(buckets)s::timestamptz[], %(nodes)s::text[], %(regions)s::text[],
              %(lines)s::text[])
    WITH ORDINALITY AS place (bucket_start, node_id, region, line_code, number)
    ON place.number = given.place
  JOIN unnest(%(prices)s::numeric[], %(multipliers)s::numeric[])
    WITH ORDINALITY AS tariff (price_per_byte, multiplier, number)
    ON tariff.number = given.tariff
"""

# The columns in which a minute's own charges are all the same: the statements fill them in.
NOTHING_ADJUSTED = {
    "entry_types": arrays.texts(()),
    "adjusts": arrays.optional(()),
    "reasons": arrays.texts(()),
}


class EntryColumns:
    """Charges as columns, which take much less memory than the charges do."""

    def __init__(self) -> None:
        self.rows = 0
        self._parts: defaultdict[str, list[Any]] = defaultdict(list)
        self._places = arrays.Places()
        self._is_plain = True
        self._tariffs = arrays.Tariffs()

    def add(self, charges: Sequence[Charge]) -> None:
        """Append charges."""
        if not charges:
            return
        self.rows += len(charges)
        (
            ledger_ids,
            keys,
            included,
            rated,
            prices,
            multipliers,
            amounts,
            quotas_before,
            balances_before,
            balances_after,
            entry_types,
            adjusts,
            reasons,
        ) = zip(*charges, strict=True)
        self._is_plain &= set(entry_types) == {"traffic_charge"} and not any(reasons)
        # Text is what doubles are made of quickest, and amounts are sent as that as well.
        amount_texts = list(map(str, amounts))
        for name, part in {
            "places": self._places.numbers(keys),
            "ledger_ids": arrays.uuids(ledger_ids),
            "account_uuids": arrays.uuids([key.account_uuid for key in keys]),
            "included": arrays.bigints(included),
            "rated": arrays.bigints(rated),
            "tariffs": self._tariffs.numbers(prices, multipliers),
            "amounts": arrays.plain(amount_texts),
            "amount_doubles": arrays.doubles(amount_texts),
            "quotas_before": arrays.bigints(quotas_before),
            "balances_before": arrays.plain(balances_before),
            "balances_after": arrays.doubles(list(map(str, balances_after))),
            "entry_types": arrays.texts(entry_types),
            "adjusts": arrays.optional(adjusts),
            "reasons": arrays.texts(reasons),
        }.items():
            self._parts[name].append(part)

    def write(
        self,
        connection: Connection,
        pricing_rule_version: str,
        run_id: str,
        *,
        beside_older: bool,
    ) -> Sent:
        """Append the ledger entries, and then their evidence; return the former.

        Raises UniqueViolation, as the statement's answer, where some evidence is there already,
        and where an entry is. With `beside_older` such an entry stays as it is.
        """
        if not self.rows:
            return Sent()
        columns = {name: arrays.joined(parts) for name, parts in self._parts.items()}
        self._parts.clear()
        columns |= self._places.columns() | self._tariffs.columns()
        if self._is_plain:
            columns |= NOTHING_ADJUSTED
        columns["pricing_rule_version"] = pricing_rule_version
        columns["run_id"] = run_id
        statement = ADD_MISSING_LEDGER_ENTRIES if beside_older else ADD_LEDGER_ENTRIES
        ledger = Sent(self.rows, connection.execute(statement, columns))
        connection.execute(ADD_CHARGES, columns)
        return ledger
