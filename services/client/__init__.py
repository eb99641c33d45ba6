"""One hospital: its data, its model, its training under differential privacy."""
