"""Named situations of one node, minute by minute, with the truth of each.

`library` lists them, `actions` is what may happen in one, and `playing` plays one: it answers what
the exporter offers at any moment, as decoded snapshots or through `server.serve(played.fleet)`,
and what must be charged for it.
"""
