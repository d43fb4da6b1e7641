"""The transport of readings between processes: both ends of Ingest and of Query's answers."""
