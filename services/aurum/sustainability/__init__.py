"""Energy, carbon and water of machines, from what their sensors read. Pure functions; only the providers of emission
factors do any I/O."""
