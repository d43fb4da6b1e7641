"""The ingestion service: keeps readings and answers questions about them."""
