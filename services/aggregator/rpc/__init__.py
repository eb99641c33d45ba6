"""The data port: what may be asked, by whom, how often, and how calls become values and errors."""
