"""Tests without a database: the core and what stands alone."""
