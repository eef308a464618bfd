"""`billing reverse`."""
