"""The basis of every service: settings, logs, metrics, traces, health, gRPC server and clients."""
