"""The JSON documents that pass from step to step, each read in one place: manifest, evaluation, verdict."""
