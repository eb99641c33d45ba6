"""Runs and their phases, without a transport: tasks go out, updates come in, a phase closes and publishes."""
