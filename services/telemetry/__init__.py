"""How a service shows itself to its operator: its log, and the port of its metrics. Both services use it."""
