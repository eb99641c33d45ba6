"""What every page that deerfield writes shares."""
