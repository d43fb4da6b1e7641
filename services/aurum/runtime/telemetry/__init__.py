"""Logs, traces and the export of audit events."""
