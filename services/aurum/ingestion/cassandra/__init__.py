"""The store beyond one machine: segments in Apache Cassandra or ScyllaDB, behind any number of ingestion replicas."""
