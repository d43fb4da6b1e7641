"""The prediction service: failure risk, remaining useful life and explanations; and the training of its models."""
