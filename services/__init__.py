"""Every program of a cluster, one package for each image."""
