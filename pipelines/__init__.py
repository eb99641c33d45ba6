"""What people start: the `deerfield` command, embedded runs, reports."""
