"""Models on the hub's own data, with intervals."""
