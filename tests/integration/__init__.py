"""Tests on a real PostgreSQL: the write path, the jobs and each command."""
