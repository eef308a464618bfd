"""A compromised exporter against `collect`, `catch-up`, `reconcile` and `audit`."""
