"""The model registry as people read it."""
