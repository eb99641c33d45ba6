"""What becomes of a run when its server is killed: released peers beside deerfield."""
