"""gRPC: the server of a service, clients of other services, and mutual TLS."""
