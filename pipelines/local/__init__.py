"""A compiled pipeline on this machine, with the services that it needs."""
