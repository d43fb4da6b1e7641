"""Metrics of access control."""

from prometheus_client import Counter

auth_refused_total = Counter("auth_refused_total", "Requests refused for who sent them.", ["why"])
