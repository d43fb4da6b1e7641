"""Durable storage on one machine: logs, packed segments, SQLite databases, and one writer that commits in groups."""
