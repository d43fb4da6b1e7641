"""The admin server of each process: probes, metrics and state."""
