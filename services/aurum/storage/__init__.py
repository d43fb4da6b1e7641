"""Durable storage on one machine: packed segments, and one SQLite writer that commits in groups."""
