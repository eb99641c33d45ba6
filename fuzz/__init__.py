"""Targets for atheris, a coverage-guided fuzzer: not needed to build, test or run anything."""
