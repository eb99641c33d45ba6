"""Models scored on data that is public or belongs to the consortium."""
