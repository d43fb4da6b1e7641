"""The ingestion service: stores readings and answers queries about them."""
