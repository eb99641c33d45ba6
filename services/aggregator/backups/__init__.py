"""Backup while the aggregator runs, and restore."""
