"""A fleet of exporters that knows its own truth: for the demo, the tests and the benchmarks.

`process` is what xray counts, `publication` and `history` are what an exporter makes of it, and
`traffic` lets bytes flow and takes snapshots, which `server` publishes. `oracle` and `expectation`
say what an honest biller must arrive at, `invariants` holds a database against both, and
`scenarios` are named situations. `accounts` and `read_service` play accounts.svc.plus.
"""
