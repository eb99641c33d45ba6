"""Certificates for those without a PKI of their own."""
