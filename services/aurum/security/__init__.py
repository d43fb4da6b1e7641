"""Who may do what: identities, roles, keys, tokens, sessions, limits, the audit log. Imports nothing of a service."""
