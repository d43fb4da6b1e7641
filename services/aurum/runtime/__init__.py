"""What every service stands on: settings, logs, metrics, traces, health, gRPC server and channel."""
