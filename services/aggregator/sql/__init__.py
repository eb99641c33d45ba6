"""The aggregator's database: one transaction for each edge, on SQLite and PostgreSQL."""
