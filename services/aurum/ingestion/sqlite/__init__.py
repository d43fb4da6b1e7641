"""The store on one machine: a log that makes batches durable, and SQLite tables that hold segments."""
