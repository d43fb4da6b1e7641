"""What the inputs of all protocols share: configuration, tags, batches, connection state."""
