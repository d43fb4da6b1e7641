"""The prediction service: which machines will fail, when, and why; and how its models are trained."""
