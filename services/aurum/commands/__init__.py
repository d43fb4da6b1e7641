"""What the commands of `aurum` do that are no services."""
