"""A real Apache Cassandra for tests: nodes on 127.0.0.1, 127.0.0.2, …, started from the jars that Maven brings."""
