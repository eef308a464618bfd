"""What `billing` costs: `python -m benchmarks` runs all of it; docs/performance.md shows it."""
