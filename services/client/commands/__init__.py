"""The commands of `python -m services.client`, by when they are needed: each module adds its own to the parser."""
