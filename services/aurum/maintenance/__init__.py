"""When to maintain a machine: what acting now, at the next planned stop or at the failure is expected to cost."""
