"""The commands of `deerfield`: what a person types, and nothing that computes."""
