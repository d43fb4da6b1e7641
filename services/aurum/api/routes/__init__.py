"""The HTTP routes, grouped by subject."""
