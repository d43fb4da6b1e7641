"""HTTP: servers, their limits and their exposure, and clients of other services."""
