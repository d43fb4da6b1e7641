"""The store on one machine: a log that makes readings durable, and SQLite tables that they are packed into."""
