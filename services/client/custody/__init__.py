"""What a site holds in trust for its hospital: ledgers, the signing key, the updates that may be sent."""
