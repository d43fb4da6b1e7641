"""Learning from what happened: when to train again, comparison with the shadow model on later lives, promotion."""
