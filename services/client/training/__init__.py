"""Private training of adapters on this site's units."""
