"""Readings: columnar batches, the rules for them, and the file formats that they are read from.

All clients and servers of the ingestion contract share this package: ingestion, edge gateways, the API, importers,
simulators.
"""
