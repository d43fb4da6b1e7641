"""The store for several replicas of ingestion, with segments in Apache Cassandra or ScyllaDB."""
