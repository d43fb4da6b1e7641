"""Limits of the contract that clients and servers of the IngestionService share."""

MAX_PAGE = 1000  # machines in one answer
MAX_EVENTS = 1000  # events in one request, or in one answer
