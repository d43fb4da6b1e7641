"""Authentication, authorization and rate limits: identities, roles, API keys, tokens and sessions.

This package imports no code of a single service.
"""
