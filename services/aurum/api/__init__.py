"""The API: HTTP for browsers, scripts and Grafana, and the console."""
