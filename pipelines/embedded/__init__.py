"""A whole federation on one machine: `deerfield run`, its plan and its audit."""
