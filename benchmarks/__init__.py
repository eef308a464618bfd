"""What `billing` costs: `python -m benchmarks` runs it; docs/evidence/performance.md shows it."""
