"""Bytes by their sha256, in a folder or a bucket, and what is dropped when."""
