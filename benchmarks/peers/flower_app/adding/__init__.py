"""The task as a Flower app."""
