"""How the tables came to be what they are: one file for each change, applied in order at the start."""
