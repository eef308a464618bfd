"""A fleet of exporters that knows its own truth: for the demo, the tests and the benchmarks.

`traffic` lets bytes flow and takes snapshots, `server` publishes them as exporters do, `oracle`
says what an honest biller must arrive at, and `invariants` holds a database against both.
"""
