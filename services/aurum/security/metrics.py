"""Metrics of access control."""

from prometheus_client import Counter

auth_refused_total = Counter(
    "auth_refused_total", "Requests refused by authentication, authorisation or a rate limit.", ["why"]
)
