"""Runs of an aggregator as people start, follow and read them."""
