"""What fuzzes the decoders: a target for each, the oracle that all share, and the engine."""
