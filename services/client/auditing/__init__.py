"""What a site's releases give away, measured."""
