"""The consortium's server: runs, rounds, aggregation, tracking. Imports no torch."""
