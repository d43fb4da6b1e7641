"""The API service: HTTP for browsers, scripts and Grafana, and the web console."""
