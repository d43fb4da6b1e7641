"""Who may do what: identities, roles, keys, tokens, sessions, limits. Imports nothing of a service."""
