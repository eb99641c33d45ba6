"""Where examples come from, and how those that the hub owns are dealt to sites."""
