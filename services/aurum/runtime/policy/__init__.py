"""The resilience policies of a process: loading, watching, and the calls that they govern."""
