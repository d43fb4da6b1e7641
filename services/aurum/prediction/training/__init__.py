"""Training of models on histories. Serving does not import it."""
